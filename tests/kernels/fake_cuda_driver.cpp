// Stands for the CUDA driver, libcuda.so.1, while cuDNN makes plans for a device that is not there: it loads what the
// library has compiled, into nowhere. No device is found and nothing can run.
extern "C" {

#define SHOESTRING_SUCCEEDS(name) \
  int name() { return 0; }
SHOESTRING_SUCCEEDS(cuCtxGetCurrent)
SHOESTRING_SUCCEEDS(cuCtxGetLimit)
SHOESTRING_SUCCEEDS(cuCtxPopCurrent)
SHOESTRING_SUCCEEDS(cuCtxPushCurrent)
SHOESTRING_SUCCEEDS(cuDeviceGet)
SHOESTRING_SUCCEEDS(cuGetErrorName)
SHOESTRING_SUCCEEDS(cuGetErrorString)
SHOESTRING_SUCCEEDS(cuKernelGetAttribute)
SHOESTRING_SUCCEEDS(cuKernelSetAttribute)
SHOESTRING_SUCCEEDS(cuLaunchCooperativeKernel)
SHOESTRING_SUCCEEDS(cuLaunchKernel)
SHOESTRING_SUCCEEDS(cuLaunchKernelEx)
SHOESTRING_SUCCEEDS(cuLibraryLoadFromFile)
SHOESTRING_SUCCEEDS(cuLibraryUnload)
SHOESTRING_SUCCEEDS(cuLinkAddData)
SHOESTRING_SUCCEEDS(cuLinkComplete)
SHOESTRING_SUCCEEDS(cuLinkCreate)
SHOESTRING_SUCCEEDS(cuLinkDestroy)
SHOESTRING_SUCCEEDS(cuModuleGetFunction)
SHOESTRING_SUCCEEDS(cuModuleLoadData)
SHOESTRING_SUCCEEDS(cuModuleUnload)
SHOESTRING_SUCCEEDS(cuOccupancyMaxActiveBlocksPerMultiprocessor)
SHOESTRING_SUCCEEDS(cuOccupancyMaxActiveClusters)
SHOESTRING_SUCCEEDS(cuOccupancyMaxPotentialClusterSize)
SHOESTRING_SUCCEEDS(cuStreamGetCtx)
SHOESTRING_SUCCEEDS(cuTensorMapEncodeTiled)
#undef SHOESTRING_SUCCEEDS

int cuDriverGetVersion(int* version) {
  *version = 13000;
  return 0;
}
int cuDeviceGetCount(int* count) {
  *count = 0;
  return 100;  // no device
}
int cuLibraryLoadData(void** library, const void*) {
  *library = library;
  return 0;
}
int cuLibraryGetKernel(void** kernel, void*, const char*) {
  *kernel = kernel;
  return 0;
}
}
