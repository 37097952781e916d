#include "core/training/run_resources.h"

#include <algorithm>
#include <map>

#include "core/model/adapter.h"
#include "core/recipe/data_mix.h"
#include "core/recipe/validate.h"
#include "core/training/alike.h"
#include "core/training/checkpoint.h"
#include "core/training/device_choice.h"
#include "core/training/engine.h"
#include "core/training/stage_cut.h"
#include "kernels/base/check.h"
#include "kernels/base/cpu.h"
#include "kernels/base/cuda_facts.h"
#include "kernels/base/file.h"
#include "kernels/base/variant.h"
#include "parallel/placement.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

RunShape run_shape(const Recipe& recipe, const Stream& stream) {
  RunShape shape;
  shape.workers = stream.worker_count();
  shape.device = stream.device().kind;
  for (const PhaseSpec& phase : recipe.phases) {
    shape.tokens = std::max(shape.tokens, phase.sequence * phase.micro_batch);
    shape.sequences = std::max(shape.sequences, phase.micro_batch);
  }
  return shape;
}

ModelConfig model_config(const Recipe& recipe, const Tokenizer& tokenizer) {
  std::int64_t longest = 0;
  for (const PhaseSpec& phase : recipe.phases) longest = std::max(longest, phase.sequence);
  return resolve_model(recipe.model, tokenizer.vocabulary_size(), longest);
}

// Where there are vectors, an op that falls to its reference is one whose vector row refuses: the recipe must say yes.
// Where there are none, every op does, and what that costs has been judged before (check_reference_cost).
void apply_kernel_settings(const KernelsSpec& spec) {
  const bool automatic = spec.allow_reference == AllowReference::automatic;
  allow_reference(automatic ? !cpu_features().vectors() : spec.allow_reference == AllowReference::yes);
  for (const std::string& pin : spec.pin) {
    const std::size_t equals = pin.find('=');
    pin_variant(pin.substr(0, equals), pin.substr(equals + 1));
  }
}

int worker_count(const Recipe& recipe, int ranks_sharing_cores) {
  if (recipe.run.threads > 0) return recipe.run.threads;
  return std::max(1, Workers::usable_cores() / ranks_sharing_cores);
}

// The recipe has been checked: its texts are sound.
void take_mix(const Recipe& recipe, const PhaseSpec& phase, LoaderOptions& options) {
  const PhaseData data = phase_data(recipe, phase);
  std::vector<MixPoint> points;
  std::vector<double> epochs;
  std::string mistake = parse_mix(data, points) + parse_most_epochs(data, epochs);
  check(mistake.empty(), "a mix that was not checked: {}", mistake);
  options.mix = over_samples(points, phase_samples(recipe, phase));
  for (std::size_t source = 0; source < epochs.size(); ++source) options.sources[source].most_epochs = epochs[source];
}

// A phase whose length is known must not come to the end of its data on the way: its last batch may be a whole one
// more.
void check_samples(const Recipe& recipe, const PhaseSpec& phase, const Loader& loader) {
  const std::int64_t wanted = phase_samples(recipe, phase) + phase.global_batch - 1;
  if (loader.samples() >= wanted) return;
  fail(ExitCode::bad_recipe,
       "phase {}: its sources may give {} samples of {} tokens, and it trains on {}; allow more epochs (most_epochs), "
       "add a source, or make it shorter",
       phase.name, loader.samples(), phase.sequence, wanted);
}

bool any_masked(const Recipe& recipe) {
  return std::any_of(recipe.phases.begin(), recipe.phases.end(),
                     [](const PhaseSpec& phase) { return phase.objective == ObjectiveName::masked; });
}

Stream stream_on(Device device, Workers& workers) {
  return device.kind == DeviceKind::cpu ? Stream(workers) : Stream(device);
}

LongDocuments long_documents(const PhaseSpec& phase) {
  switch (phase.long_documents) {
    case LongDocumentsSpec::split: return LongDocuments::split;
    case LongDocumentsSpec::cut: return LongDocuments::cut;
    case LongDocumentsSpec::drop: return LongDocuments::drop;
    case LongDocumentsSpec::automatic: break;
  }
  return phase.objective == ObjectiveName::masked ? LongDocuments::drop : LongDocuments::split;
}

/// "shards/web and 3 more".
std::string places_of(const LoaderOptions& options) {
  const std::string& first = options.sources.front().name;
  return options.sources.size() == 1 ? first : fmt::format("{} and {} more", first, options.sources.size() - 1);
}

}  // namespace

const std::vector<SourceSpec>& train_sources(const Recipe& recipe, std::size_t phase) {
  return phase_data(recipe, recipe.phases.at(phase)).train;
}

const std::vector<SourceSpec>& validation_sources(const Recipe& recipe, std::size_t phase) {
  const std::vector<SourceSpec>& own = recipe.phases.at(phase).validation;
  return own.empty() ? recipe.data.validation : own;
}

fs::path run_directory(const Recipe& recipe) {
  return recipe.run.directory.empty() ? fs::path("runs") / recipe.run.name : fs::path(recipe.run.directory);
}

Hardware hardware_of(const Recipe& recipe, const fs::path& recipe_folder) {
  if (recipe.budget.hardware.empty()) return {};
  return read_hardware(find_hardware(recipe.budget.hardware, recipe_folder));
}

fs::path tokenizer_file(const Recipe& recipe) {
  if (!recipe.data.tokenizer.empty()) return recipe.data.tokenizer;
  const fs::path first = train_sources(recipe, 0).at(0).path;
  const fs::path folder = type_of(first) == fs::file_type::directory ? first : first.parent_path();
  for (const fs::path& place : {folder, folder.lexically_normal().parent_path()}) {
    const fs::path file = find_tokenizer(place.empty() ? "." : place);
    if (!file.empty()) return file;
  }
  fail(ExitCode::missing_input, "{}: no tokenizer file beside or above the shards; name one in data.tokenizer",
       first.string());
}

LoaderOptions loader_options(const Recipe& recipe, const std::vector<SourceSpec>& sources, const PhaseSpec& phase,
                             std::uint64_t seed, const Tokenizer& tokenizer) {
  LoaderOptions options;
  for (const SourceSpec& source : sources) {
    options.sources.push_back({.name = source.path, .paths = {source.path}, .weight = source.weight});
  }
  options.sequence = phase.sequence;
  options.long_documents = long_documents(phase);
  options.seed = seed;
  options.document_mask = recipe.data.document_mask;
  if (phase.objective == ObjectiveName::next_token) options.learned = LearnedTokens::all;
  options.io = recipe.data.io == DataIo::pread ? ShardIo::pread : ShardIo::mmap;
  if (recipe.data.fim_rate > 0) {
    const SpecialIds special = tokenizer.special();
    if (special.fim_begin < 0) {
      fail(ExitCode::bad_recipe, "data.fim_rate is {}, but the tokenizer has no fill-in-the-middle ids: leave it out",
           recipe.data.fim_rate);
    }
    options.fill_in_middle = FillInMiddle{recipe.data.fim_rate, special.fim_begin, special.fim_hole, special.fim_end};
  }
  return options;
}

MachineShare machine_share(Communicator& world) {
  MachineShare share{.ranks_on_cores = ranks_sharing(world, Workers::cores_name()),
                     .memory = memory_left(ranks_sharing(world, machine_name()))};
  if (world.size() > 1) world.barrier();
  return share;
}

MachineShare machine_share(const Recipe& recipe, Communicator& world) {
  MachineShare share = machine_share(world);
  const CudaFacts facts = looks_for_devices(recipe) ? cuda_facts() : CudaFacts{};
  DeviceChoice choice = choose_device(recipe, world.size(), facts);
  share.device = choice.device;
  share.device_text = std::move(choice.text);
  if (share.device.kind == DeviceKind::cpu) return share;
  const CudaDeviceFacts& device = facts.devices[static_cast<std::size_t>(share.device.index)];
  share.device_pci = device.pci;
  share.device_memory = {
      free_device_bytes(share.device.index),
      fmt::format("{} has {:.3g} GiB in all", device.name, static_cast<double>(device.total_bytes) / (1 << 30))};
  return share;
}

RunResources::RunResources(const Recipe& recipe, const Layout& layout, Mesh& mesh, const MachineShare& share)
    : recipe_(recipe),
      layout_(layout),
      mesh_(mesh),
      workers_(worker_count(recipe, share.ranks_on_cores)),
      stream_(stream_on(share.device, workers_)) {
  apply_kernel_settings(recipe.kernels);
  check_open_files(recipe.data);
  read_texts();
  if (any_masked(recipe)) objective_ = std::make_unique<Masked>(recipe.model.mtp_weight);
  const int per_node = layout.shape.expert > 1 ? ranks_per_node(mesh.expert(), machine_name()) : 0;
  exchange_ = exchange_of(layout, mesh, model_config(recipe, *tokenizer_), per_node);
  cut_as_measured();
  model_ = declare(recipe, 0);
  look_at_sources();
  check_room_in_memory(share);
  model_->allocate(stream_);
  optimizer_ = optimizer_of(recipe, *model_, mesh, stream_.worker_count());
}

// Before ranks build anything together: of another vocabulary they would have other shapes.
void RunResources::read_texts() {
  const fs::path tokenizer = tokenizer_file(recipe_);
  tokenizer_ = load_tokenizer(tokenizer);
  std::vector<ReadByAll> texts = {{fmt::format("the tokenizer ({})", tokenizer.string()), tokenizer_->hash()}};
  for (const PhaseSpec& phase : recipe_.phases) {
    const std::vector<std::string>& files = suites_of(recipe_, phase);
    suites_.push_back(read_suites(files));
    for (const std::string& file : files) {
      texts.push_back({fmt::format("questions of phase {} ({})", phase.name, file), hash_file(file)});
    }
  }
  check_alike(mesh_.world(), texts);
}

TransformerOptions RunResources::whole(const Recipe& recipe, int phase) const {
  return {.model = model_config(recipe, *tokenizer_),
          .precision = recipe.precision,
          .run = run_shape(recipe, stream_),
          .own_stages = {},
          .count_precision = recipe.precision.count_saturation,
          .lora = lora_of(recipe, recipe.phases.at(index_of(phase))),
          .objective = objective_.get()};
}

void RunResources::cut_as_measured() {
  if (layout_.shape.pipeline == 1 || !stages_are_measured(recipe_.parallel)) return;
  const StageCosts costs = measure_stage_costs(whole(recipe_, 0), recipe_.run.seed, mesh_.world(), stream_);
  const std::vector<std::int64_t> cut = cut_stages(costs, layout_.stage_count());
  cut_text_ = shoestring::cut_text(costs, cut, layout_.stage_layers);
  layout_.stage_layers = cut;
}

std::unique_ptr<Transformer> RunResources::declare(const Recipe& recipe, int phase) const {
  return std::make_unique<Transformer>(part_of(whole(recipe, phase), layout_, exchange_.get()));
}

bool RunResources::begins_with_weights(int phase) const {
  return shoestring::begins_with_weights(recipe_, index_of(phase));
}

bool RunResources::fit_to(int phase) {
  const bool adapted = std::any_of(model_->parameters().begin(), model_->parameters().end(),
                                   [](const Parameter* parameter) { return parameter->role == ParameterRole::factor; });
  if (adapted == adapts(phase)) return false;
  std::map<std::string, ConstTensorView> weights;
  for (const Parameter* parameter : model_->parameters()) {
    if (parameter->role == ParameterRole::factor) continue;
    for (const ParameterSlice& slice : parameter->slices) {
      const TensorView value = parameter->value.slice(0, slice.begin, slice.rows);
      const bool added = parameter->adapter != nullptr && parameter->adapter->adapts(slice);
      if (added) parameter->adapter->add_to(value, slice, stream_);
      weights.emplace(slice.name, value);
    }
  }
  const Tensor kept = std::move(model_->store().values);
  optimizer_.reset();
  model_ = declare(recipe_, phase);
  model_->allocate(stream_);
  for (const Parameter* parameter : model_->parameters()) {
    if (parameter->role == ParameterRole::factor) continue;
    for (const ParameterSlice& slice : parameter->slices) {
      copy_tensor(parameter->value.slice(0, slice.begin, slice.rows), weights.at(slice.name), stream_);
    }
  }
  stream_.synchronize();
  optimizer_ = optimizer_of(recipe_, *model_, mesh_, stream_.worker_count());
  return true;
}

std::string RunResources::reach_text() const {
  return exchange_ != nullptr ? shoestring::reach_text(model_->config(), exchange_->nodes()) : std::string();
}

std::unique_ptr<Import> RunResources::open_source(int phase) const {
  const WeightsSource source = weights_source(recipe_, index_of(phase));
  const CheckpointNotice refuse = [&](const std::string& text) {
    fail(ExitCode::corrupt_checkpoint, "{}: {}; name a sound checkpoint of that run", source.key, text);
  };
  auto import = std::make_unique<Import>(model_folder_of(source.place, refuse), *model_);
  import->check_tokenizer(*tokenizer_);
  return import;
}

// Before the model takes memory: a folder's config.json may say anything, and one that does not fit a later phase is
// better known now. A run that has taken a folder's weights does not need it.
void RunResources::look_at_sources() {
  for (int phase = 0; phase < static_cast<int>(recipe_.phases.size()); ++phase) {
    const WeightsSource source = weights_source(recipe_, index_of(phase));
    if (!source || type_of(run_directory(recipe_) / source.kept) == fs::file_type::directory) continue;
    std::unique_ptr<Import> import = open_source(phase);
    if (phase == 0) import_ = std::move(import);
  }
}

TextIds RunResources::text_ids() const {
  const ModelFiles files = folder_files(model_->config(), *tokenizer_, carried_);
  return shoestring::text_ids(*tokenizer_, "the run's model", [&](const std::string& name) {
    for (const auto& [file, content] : files) {
      if (file == name) return content;
    }
    return std::string();
  });
}

RunResources::Begun RunResources::begin_weights(int phase, bool keeps, const TellProgress& tell) {
  if (phase > 0) begin_anew(*optimizer_, stream_);
  const WeightsSource source = weights_source(recipe_, index_of(phase));
  if (!source && phase == 0) {
    model_->initialise(recipe_.run.seed, [&](std::int64_t done, std::int64_t all) {
      if (tell) tell({.doing = "drawing weights", .done_bytes = 4 * done, .all_bytes = 4 * all});
    });
    return {};
  }
  if (!source) {  // the weights stay, other ones are trained
    model_->initialise_factors(recipe_.run.seed);
    return {};
  }
  const std::unique_ptr<Import> import = import_ ? std::move(import_) : open_source(phase);
  model_->initialise_factors(recipe_.run.seed);
  carried_ = import->files();
  if (keeps) keep_source(run_directory(recipe_) / source.kept, carried_);
  const Import::Read read = import->run(tell);
  check_alike(mesh_.world(), {{fmt::format("{} ({})", source.key, source.place.string()), read.hash}});
  return {source.key, read.text};
}

void RunResources::goes_on_in(int phase) {
  import_.reset();
  while (phase > 0 && !weights_source(recipe_, index_of(phase))) --phase;
  carried_ = kept_source(run_directory(recipe_) / weights_source(recipe_, index_of(phase)).kept);
}

double RunResources::guessed_checkpoint_seconds() const {
  constexpr double kDiskBytesPerSecond = 200e6;
  return 0.2 + static_cast<double>(model_->memory().parameters + optimizer_->state_bytes()) / kDiskBytesPerSecond;
}

std::unique_ptr<Loader> RunResources::checked(LoaderOptions options) const {
  auto loader = std::make_unique<Loader>(std::move(options));
  if (loader->tokenizer_hash() != tokenizer_->hash()) {
    fail(ExitCode::bad_data,
         "{}: the shards were made with another tokenizer ({}) than {} ({}); build them again, or "
         "name theirs in data.tokenizer",
         loader->options().sources[0].name, loader->tokenizer_hash(), tokenizer_file(recipe_).string(),
         tokenizer_->hash());
  }
  return loader;
}

std::unique_ptr<Loader> RunResources::train_loader(int phase, const ShardReading& reading) const {
  const PhaseSpec& spec = recipe_.phases[static_cast<std::size_t>(phase)];
  // Phases draw different orders from one seed.
  LoaderOptions options = loader_options(recipe_, train_sources(recipe_, static_cast<std::size_t>(phase)), spec,
                                         recipe_.run.seed + static_cast<std::uint64_t>(phase), *tokenizer_);
  if (objective_) {
    options.weights = spec.loss_mean == LossMean::documents ? TokenWeights::documents : TokenWeights::tokens;
  }
  take_mix(recipe_, spec, options);
  options.storage = reading.storage;
  options.patience = reading.patience;
  if (!recipe_.data.stage.empty()) {
    options.stage = StageOptions{.folder = recipe_.data.stage, .most_bytes = recipe_.data.stage_bytes};
  }
  auto loader = checked(std::move(options));
  check_alike(mesh_.world(), {{fmt::format("training data of phase {} ({})", spec.name, places_of(loader->options())),
                               loader->plan()}});
  if (spec.objective == ObjectiveName::masked && !loader->masked()) {
    fail(ExitCode::bad_recipe,
         "phase.{}.objective = masked: {} marks nothing as learned; build conversations with `data build --chat`, or "
         "take objective = next_token to learn every token",
         spec.name,
         loader->sources() == 1 ? loader->options().sources[0].name
                                : fmt::format("none of its {} sources", loader->sources()));
  }
  check_samples(recipe_, spec, *loader);
  return loader;
}

std::vector<std::unique_ptr<Loader>> RunResources::validation_loaders(int phase, const ShardReading& reading) const {
  std::vector<std::unique_ptr<Loader>> loaders;
  std::vector<ReadByAll> held_out;
  for (const SourceSpec& source : validation_sources(recipe_, static_cast<std::size_t>(phase))) {
    LoaderOptions options =
        loader_options(recipe_, {source}, recipe_.phases[static_cast<std::size_t>(phase)], 0, *tokenizer_);
    options.fill_in_middle.reset();
    options.storage = reading.storage;
    options.patience = reading.patience;
    loaders.push_back(checked(std::move(options)));
    held_out.push_back({fmt::format("held-out text ({})", source.path), loaders.back()->plan()});
  }
  check_alike(mesh_.world(), held_out);
  return loaders;
}

}  // namespace shoestring
