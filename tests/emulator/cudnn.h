// Whether the emulated device has something that stands for cuDNN: see cudnn.cpp.
#pragma once

namespace shoestring::emulator_cudnn {

bool& stands_in();

}  // namespace shoestring::emulator_cudnn
