#include "core/recipe/keys.h"

#include <limits>

#include "core/recipe/section_keys.h"
#include "data/loader.h"
#include "data/prefetching_loader.h"
#include "kernels/router.h"

namespace shoestring {
namespace {

constexpr double kAny = std::numeric_limits<double>::infinity();
constexpr double kMostWhole = 9007199254740991.0;  // 2^53 - 1 (parse_whole)
constexpr double kMostExtent = 1 << 24;
constexpr double kMostPositions = 1 << 30;
constexpr double kMostInt = 1 << 20;
constexpr double kMostExperts = kRouterMaxExperts;
constexpr auto kFree = OnResume::free;

constexpr Limits kText{};
constexpr Limits kCount{0, kMostWhole, Unit::count};
constexpr Limits kExtent{0, kMostExtent, Unit::count};
constexpr Limits kPositions{0, kMostPositions, Unit::positions};
constexpr Limits kNotNegative{0, kAny, Unit::none};
constexpr Limits kPositive{kAboveZero, kAny, Unit::none};
constexpr Limits kShare{0, 1, Unit::fraction};

void add_run(std::vector<Key>& keys) {
  section_keys(keys, "run", &Recipe::run)
      .key("name", &RunSpec::name, kText, "names the run and its directory: letters, digits, '_', '-', '.'")
      .key("directory", &RunSpec::directory, kText, "where the run is kept; empty: runs/NAME", kFree)
      .key("project", &RunSpec::project, kText,
           "runs of one project are summed by `report --all`; empty: the run's name", kFree)
      .key("seed", &RunSpec::seed, {0, kMostWhole}, "of weights, data order and everything else random")
      .key("device", &RunSpec::device, kText,
           "where it trains; automatic: on a CUDA device where the driver shows one, unless budget.hardware = cpu",
           kFree)
      .key("threads", &RunSpec::threads, {0, 4096}, "CPU threads of one rank; 0: the cores it may use", kFree)
      .key("tensorboard", &RunSpec::tensorboard, kText, "write TensorBoard event files beside metrics.jsonl", kFree)
      .key("hang_after", &RunSpec::hang_after, {0, kAny, Unit::seconds},
           "time without progress after which a rank is named and the run ends (exit code 80), longer only while files "
           "are read or written; 0: ten times the slowest step so far, at least 10 s",
           kFree)
      .key("trace", &RunSpec::trace, {0, 10000},
           "steps of each launch, the first one aside, whose actions and waits RUN/trace.json shows on a time line "
           "(Chrome's format); of a pipeline at least three",
           kFree);
}

void add_budget(std::vector<Key>& keys) {
  section_keys(keys, "budget", &Recipe::budget)
      .key("gpu_hours", &BudgetSpec::gpu_hours, {0, kAny, Unit::hours},
           "cap in device-hours (ranks x wall-clock) over all attempts; 0: none", kFree)
      .key("usd", &BudgetSpec::usd, {0, kAny, Unit::usd}, "cap in money over all attempts; 0: none", kFree)
      .key("kwh", &BudgetSpec::kwh, kNotNegative, "cap in energy at the hardware's stated power; 0: none", kFree)
      .key("job_hours", &BudgetSpec::job_hours, {0, kAny, Unit::hours},
           "limit on the wall-clock time of one launch; 0: none", kFree)
      .key("hardware", &BudgetSpec::hardware, kText, "recipes/hardware/NAME.hardware: peaks, bandwidths, power", kFree)
      .key("usd_per_gpu_hour", &BudgetSpec::usd_per_gpu_hour, {0, kAny, Unit::usd},
           "what a device-hour costs; 0: no money is shown", kFree)
      .key("price_source", &BudgetSpec::price_source, kText, "who says so; required beside a price", kFree)
      .key("price_date", &BudgetSpec::price_date, kText, "when, YYYY-MM-DD; required beside a price", kFree)
      .key("warn_at", &BudgetSpec::warn_at, kText, "shares of the cap at which a line says so; none: say nothing",
           kFree);
}

void add_kernels(std::vector<Key>& keys) {
  section_keys(keys, "kernels", &Recipe::kernels)
      .key("allow_reference", &KernelsSpec::allow_reference, kText,
           "whether plain reference kernels may run; automatic: only on a processor without vectors, and not if a step "
           "takes more than ten times as long there",
           kFree)
      .key("pin", &KernelsSpec::pin, kText, "op=variant, op=variant ...: use this variant or fail", kFree);
}

void add_model(std::vector<Key>& keys) {
  section_keys(keys, "model", &Recipe::model)
      .key("from", &ModelSpec::from, kText,
           "a Hugging Face folder, or a run, that the run begins with: its weights, and every key of [model] not given "
           "here",
           kFree)
      .key("architecture", &ModelSpec::architecture, kText, "family of the model")
      .key("vocabulary", &ModelSpec::vocabulary, kExtent,
           "token ids [vocab_size]; 0: the tokenizer's, up to a multiple of 64")
      .key("layers", &ModelSpec::layers, {0, 4096}, "transformer layers [num_hidden_layers]")
      .key("hidden", &ModelSpec::hidden, kExtent, "width of the residual stream [hidden_size]")
      .key("heads", &ModelSpec::heads, kExtent, "query heads [num_attention_heads]")
      .key("kv_heads", &ModelSpec::kv_heads, kExtent, "key and value heads [num_key_value_heads]; 0: as heads")
      .key("head_dim", &ModelSpec::head_dim, kExtent, "size of a head; 0: hidden / heads")
      .key("feed_forward", &ModelSpec::feed_forward, kExtent, "width of a dense feed-forward [intermediate_size]")
      .key("max_positions", &ModelSpec::max_positions, kPositions,
           "longest context [max_position_embeddings]; 0: the longest phase's sequence")
      .key("tie_embeddings", &ModelSpec::tie_embeddings, kText, "output head = embedding [tie_word_embeddings]")
      .key("norm_eps", &ModelSpec::norm_eps, {kAboveZero, 1}, "added to the mean square in RMSNorm [rms_norm_eps]")
      .key("init_std", &ModelSpec::init_std, {kAboveZero, 1e30},
           "standard deviation of new weights [initializer_range]")
      .key("rope_theta", &ModelSpec::rope_theta, kPositive, "base of the rotary frequencies")
      .key("rope_scaling", &ModelSpec::rope_scaling, kText, "how positions beyond the original ones are scaled")
      .key("rope_factor", &ModelSpec::rope_factor, {1, kAny}, "positions now over original ones")
      .key("rope_original_positions", &ModelSpec::rope_original_positions, kPositions,
           "context before scaling [original_max_position_embeddings]")
      .key("rope_low_frequency_factor", &ModelSpec::rope_low_frequency_factor, kPositive,
           "llama3 scaling: below it, scaled in full")
      .key("rope_high_frequency_factor", &ModelSpec::rope_high_frequency_factor, kPositive,
           "llama3 scaling: above it, not scaled")
      .key("rope_beta_fast", &ModelSpec::rope_beta_fast, kPositive, "yarn scaling: turns above which nothing is scaled")
      .key("rope_beta_slow", &ModelSpec::rope_beta_slow, kPositive, "yarn scaling: turns below which all is scaled")
      .key("rope_mscale", &ModelSpec::rope_mscale, kNotNegative, "yarn scaling of the attention logits")
      .key("rope_mscale_all_dim", &ModelSpec::rope_mscale_all_dim, kNotNegative,
           "yarn scaling of the attention logits, all dims");
}

void add_experts(std::vector<Key>& keys) {
  section_keys(keys, "model", &Recipe::model)
      .key("q_lora_rank", &ModelSpec::q_lora_rank, kExtent, "latent queries; 0: straight from the hidden state")
      .key("kv_lora_rank", &ModelSpec::kv_lora_rank, kExtent, "latent keys and values")
      .key("qk_nope_head_dim", &ModelSpec::qk_nope_head_dim, kExtent, "part of a query or key head without RoPE")
      .key("qk_rope_head_dim", &ModelSpec::qk_rope_head_dim, kExtent, "part with RoPE")
      .key("v_head_dim", &ModelSpec::v_head_dim, kExtent, "of a value head")
      .key("experts", &ModelSpec::experts, {0, kMostExperts},
           "routed experts of a layer [n_routed_experts, num_experts]")
      .key("experts_per_token", &ModelSpec::experts_per_token, {0, kMostExperts},
           "experts a token is routed to [num_experts_per_tok]")
      .key("shared_experts", &ModelSpec::shared_experts, {0, 1024},
           "experts every token goes through [n_shared_experts]")
      .key("expert_feed_forward", &ModelSpec::expert_feed_forward, kExtent,
           "width of one expert [moe_intermediate_size]")
      .key("dense_layers", &ModelSpec::dense_layers, {0, 4096}, "first layers, without experts [first_k_dense_replace]")
      .key("expert_groups", &ModelSpec::expert_groups, {1, kMostExperts},
           "groups the experts are divided into [n_group]")
      .key("expert_topk_groups", &ModelSpec::expert_topk_groups, {1, kMostExperts},
           "groups a token may use [topk_group]")
      .key("router", &ModelSpec::router, kText, "function that turns a logit into an expert's score")
      .key("normalize_weights", &ModelSpec::normalize_weights, kText,
           "weights of the chosen experts sum to 1 [norm_topk_prob]")
      .key("routed_scale", &ModelSpec::routed_scale, kPositive, "factor on routed outputs [routed_scaling_factor]")
      .key("bias_speed", &ModelSpec::bias_speed, kNotNegative, "step of the loss-free balancing; 0: biases stay")
      .key("balance_loss", &ModelSpec::balance_loss, kNotNegative, "weight of the sequence-wise balance loss")
      .key("mtp_layers", &ModelSpec::mtp_layers, {0, 1}, "1: predict one token further [num_nextn_predict_layers]")
      .key("mtp_weight", &ModelSpec::mtp_weight, kNotNegative, "weight of that loss");
}

void add_precision(std::vector<Key>& keys) {
  section_keys(keys, "precision", &Recipe::precision)
      .key("policy", &PrecisionSpec::policy, kText, "number formats of training; the keys below refine the fp8 ones")
      .key("scales", &PrecisionSpec::scales, kText, "form of the scales of low-precision tiles")
      .key("forward", &PrecisionSpec::forward, kText, "format of forward products")
      .key("input_gradient", &PrecisionSpec::input_gradient, kText, "format of input-gradient products")
      .key("weight_gradient", &PrecisionSpec::weight_gradient, kText, "format of weight-gradient products")
      .key("gradients_e5m2", &PrecisionSpec::gradients_e5m2, kText, "activation gradients in E5M2 instead of E4M3")
      .key("cache_fp8", &PrecisionSpec::cache_fp8, kText, "keep activations of FP8 products in FP8 for backward")
      .key("count_saturation", &PrecisionSpec::count_saturation, kText,
           "saturated and underflowed shares in the metrics", kFree)
      .key("native", &PrecisionSpec::native, kText, "refuse a device whose products are not in the policy's own format",
           kFree)
      .key("moments", &PrecisionSpec::moments, kText, "format of the optimizer's moments")
      .key("dispatch", &PrecisionSpec::dispatch, kText, "format in which tokens travel to their experts");
}

void add_parallel(std::vector<Key>& keys) {
  section_keys(keys, "parallel", &Recipe::parallel)
      .key("pipeline", &ParallelSpec::pipeline, {1, kMostInt}, "ranks along the depth of the model", kFree)
      .key("expert", &ParallelSpec::expert, {1, kMostInt}, "ranks that share the experts", kFree)
      .key("data", &ParallelSpec::data, {0, kMostInt}, "ranks along the batch; 0: all that are left", kFree)
      .key("schedule", &ParallelSpec::schedule, kText,
           "order of forward and backward on a pipeline; automatic: zb_v where each rank can have two stages, or zb_h1",
           kFree)
      .key("stages", &ParallelSpec::stages, kText,
           "layers of each pipeline stage: 5, 6, 6, 5; measured: cut by what they take here; empty: as even as they "
           "divide",
           kFree)
      .key("stages_per_rank", &ParallelSpec::stages_per_rank, {2, 64}, "of the interleaved schedule", kFree)
      .key("reduction_groups", &ParallelSpec::reduction_groups, {0, kMostInt},
           "groups of the canonical gradient sum; 0: the data axis of the first attempt")
      .key("shard_optimizer", &ParallelSpec::shard_optimizer, kText,
           "ranks with the same weights share the optimizer's state (ZeRO-1)", kFree);
}

void add_data(std::vector<Key>& keys) {
  section_keys(keys, "data", &Recipe::data)
      .key("train", &DataSpec::train, kText, "shards or folders of shards: PATH, or PATH:WEIGHT, PATH:WEIGHT ...",
           kFree)  // where they lie; the data plan holds what they are, and their weights
      .key("validation", &DataSpec::validation, kText, "held-out shards, as train", kFree)
      .key("tokenizer", &DataSpec::tokenizer, kText, "tokenizer file; empty: the one beside the first shard", kFree)
      .key("document_mask", &DataSpec::document_mask, kText, "documents in one sequence do not see each other")
      .key("fim_rate", &DataSpec::fim_rate, kShare, "share of documents rearranged for fill-in-the-middle")
      .key("io", &DataSpec::io, kText,
           "how shards are read; what lies behind a network, or is copied to data.stage, is read by pread", kFree)
      .key("prefetch", &DataSpec::prefetch, {1, kMostPrefetch}, "micro-batches prepared ahead", kFree)
      .key("mix", &DataSpec::mix, kText,
           "how train's weights change over a phase: SHARE: WEIGHT WEIGHT ..., SHARE: ... as 0.8: 0.7 0.3, 1: 0.2 0.8; "
           "in straight lines between shares of its length; empty: not at all")
      .key("most_epochs", &DataSpec::most_epochs, kText,
           "most epochs of a phase for each source of train, as 4, 0; 0: any number; empty: no limits")
      .key("stage", &DataSpec::stage, kText,
           "a folder on a fast disk of each node, to which training shards are copied while the run reads them; empty: "
           "none",
           kFree)
      .key("stage_bytes", &DataSpec::stage_bytes, {0, kMostWhole, Unit::bytes},
           "most bytes of shards on that disk; 0: what it has left, but for a tenth", kFree);
}

void add_optimizer(std::vector<Key>& keys) {
  section_keys(keys, "optimizer", &Recipe::optimizer)
      .key("name", &OptimizerSpec::name, kText,
           "muon: matrices of the hidden layers, or of adapters; the rest stays with AdamW")
      .key("state", &OptimizerSpec::state, kText,
           "whose memory holds its state: the device's, or the host's, from where a piece at a time passes through the "
           "device; a CPU has one memory for both",
           kFree)
      .key("beta1", &OptimizerSpec::beta1, {0, 0.999999}, "decay of AdamW's first moment")
      .key("beta2", &OptimizerSpec::beta2, {0, 0.999999999}, "decay of AdamW's second moment")
      .key("epsilon", &OptimizerSpec::epsilon, {kAboveZero, 1}, "added to the root of the second moment")
      .key("weight_decay", &OptimizerSpec::weight_decay, {0, 10}, "of matrices; norms, biases, embeddings: none")
      .key("clip", &OptimizerSpec::clip, kNotNegative, "largest global gradient norm; 0: off")
      .key("muon_momentum", &OptimizerSpec::muon_momentum, {0, 0.999999}, "Muon's momentum")
      .key("muon_iterations", &OptimizerSpec::muon_iterations, {1, 100}, "Newton-Schulz iterations");
}

void add_lora(std::vector<Key>& keys) {
  section_keys(keys, "lora", &Recipe::lora)
      .key("rank", &LoraSpec::rank, {0, 4096},
           "of low-rank adapters, which are trained in place of the weights they add to; 0: all weights are trained")
      .key("alpha", &LoraSpec::alpha, kNotNegative, "adapters are added times alpha / rank; 0: as rank")
      .key("targets", &LoraSpec::targets, kText,
           "projections that have one, of those the model has: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, "
           "down_proj; of latent attention q_a_proj, q_b_proj, kv_a_proj_with_mqa, kv_b_proj");
}

void add_schedule(std::vector<Key>& keys) {
  section_keys(keys, "schedule", &Recipe::schedule)
      .key("kind", &ScheduleSpec::kind, kText, "shape of the learning rate")
      .key("horizon", &ScheduleSpec::horizon, kText, "what the end of the schedule is tied to")
      .key("learning_rate", &ScheduleSpec::learning_rate, {kAboveZero, 100}, "peak")
      .key("final_fraction", &ScheduleSpec::final_fraction, kShare, "last rate over peak")
      .key("warmup_steps", &ScheduleSpec::warmup_steps, kCount, "steps from 0 to peak")
      .key("decay_fraction", &ScheduleSpec::decay_fraction, kShare, "share of the horizon spent decaying");
}

void add_phase(std::vector<Key>& keys) {
  const auto at = [](auto& recipe, std::size_t phase) -> auto& { return recipe.phases[phase]; };
  SectionKeys<PhaseSpec, decltype(at)>(keys, "phase", at)
      .key(
          "from", &PhaseSpec::from, kText,
          "a Hugging Face folder, or a run, with whose weights it begins, new moments and a warm-up of its own; empty: "
          "it goes on with those before",
          kFree)
      .key("objective", &PhaseSpec::objective, kText,
           "next_token: every token is learned; masked: of conversations what `data build --chat` marks as learned; "
           "automatic: what shards mark, of those that mark nothing every token")
      .key("train", &PhaseSpec::train, kText, "its own data; empty: data.train", kFree)
      .key("validation", &PhaseSpec::validation, kText, "its own held-out data; empty: data.validation", kFree)
      .key("mix", &PhaseSpec::mix, kText, "its own; empty: data.mix, unless it has its own train")
      .key("most_epochs", &PhaseSpec::most_epochs, kText,
           "its own; empty: data.most_epochs, unless it has its own train")
      .key("suites", &PhaseSpec::suites, kText, "its own; empty: evaluation.suites", kFree)
      .key("lora", &PhaseSpec::lora, kText,
           "with lora.rank: it trains adapters; no: all weights, with what adapters before it came to in them")
      .key("learning_rate", &PhaseSpec::learning_rate, {0, 100}, "its own peak; 0: schedule.learning_rate")
      .key("loss_mean", &PhaseSpec::loss_mean, kText,
           "masked: the loss is the mean over learned tokens, or over documents, of which each counts alike")
      .key("long_documents", &PhaseSpec::long_documents, kText,
           "longer than a sample: split, cut at its end, or drop; automatic: split, drop where the objective is masked")
      .key("patience", &PhaseSpec::patience, kCount,
           "evaluations in a row without a new best held-out loss after which it ends; 0: never")
      .key("sequence", &PhaseSpec::sequence, {0, kMostSequence, Unit::positions}, "tokens per sequence")
      .key("micro_batch", &PhaseSpec::micro_batch, {1, kMostExtent, Unit::count}, "sequences per micro-batch")
      .key("global_batch", &PhaseSpec::global_batch, {0, kMostExtent, Unit::count}, "sequences per optimizer step")
      .key("batch_ramp_from", &PhaseSpec::batch_ramp_from, {0, kMostExtent, Unit::count},
           "sequences per step at the start of a ramp; 0: no ramp")
      .key("batch_ramp_tokens", &PhaseSpec::batch_ramp_tokens, kCount,
           "tokens over which the batch grows, counted as tokens are")
      .key("tokens", &PhaseSpec::tokens, kCount,
           "length with horizon = tokens: samples times sequence, so that what is only read counts, and padding too")
      .key("steps", &PhaseSpec::steps, kCount, "length with horizon = steps")
      .key("share", &PhaseSpec::share, {0, kAny, Unit::fraction}, "share of the budget with horizon = budget");
}

void add_care(std::vector<Key>& keys) {
  section_keys(keys, "evaluation", &Recipe::evaluation)
      .key("every_steps", &EvaluationSpec::every_steps, kCount, "steps between evaluations; 0: only at the end", kFree)
      .key("tokens", &EvaluationSpec::tokens, kCount, "held-out tokens per evaluation; 0: all", kFree)
      .key("cap_share", &EvaluationSpec::cap_share, kShare,
           "most of the cap that an evaluation may take, and the suites together; a longer one is cut to sequences, or "
           "requests, spread evenly",
           kFree)
      .key("suites", &EvaluationSpec::suites, kText,
           "files of questions with known answers, as `evaluate --suite` reads them, asked at the end of each phase",
           kFree);
  section_keys(keys, "checkpoint", &Recipe::checkpoint)
      .key("every_steps", &CheckpointSpec::every_steps, kCount, "0: not by steps", kFree)
      .key("every_minutes", &CheckpointSpec::every_minutes, {0, kAny, Unit::minutes}, "0: not by time", kFree)
      .key("keep", &CheckpointSpec::keep, {1, 1000000},
           "verified checkpoints kept, the newest; besides them the best on held-out text and, while steps are "
           "skipped, the last that a step was taken from",
           kFree);
  section_keys(keys, "guard", &Recipe::guard)
      .key("spike_sigmas", &GuardSpec::spike_sigmas, kPositive,
           "beyond mean + that many sigmas a gradient norm is clipped, a loss skips its step, once")
      .key("window", &GuardSpec::window, {2, 65536}, "steps the mean is taken over; active from half of it")
      .key("on_repeat", &GuardSpec::on_repeat, kText,
           "when the next loss stands out too, the weights are the cause: take the clipped step (clip), or go back to "
           "the last checkpoint and pass over the data between (go_back)")
      .key("skip_limit", &GuardSpec::skip_limit, {1, 1000000},
           "steps in a row that are not finite before the run saves and ends");
}

std::vector<Key> build_keys() {
  std::vector<Key> keys;
  add_run(keys);
  add_budget(keys);
  add_kernels(keys);
  add_model(keys);
  add_experts(keys);
  add_precision(keys);
  add_parallel(keys);
  add_data(keys);
  add_optimizer(keys);
  add_lora(keys);
  add_schedule(keys);
  add_phase(keys);
  add_care(keys);
  return keys;
}

}  // namespace

const std::vector<Key>& recipe_keys() {
  static const std::vector<Key> keys = build_keys();
  return keys;
}

const std::vector<std::string>& recipe_sections() {
  static const std::vector<std::string> sections = [] {
    std::vector<std::string> found;
    for (const Key& key : recipe_keys()) {
      if (found.empty() || found.back() != key.section) found.push_back(key.section);
    }
    return found;
  }();
  return sections;
}

std::string_view section_kind(std::string_view section) { return section.starts_with("phase.") ? "phase" : section; }

const Key* find_key(std::string_view section, std::string_view name) {
  for (const Key& key : recipe_keys()) {
    if (key.name == name && key.section == section_kind(section)) return &key;
  }
  return nullptr;
}

std::string default_text(const Key& key) {
  static const Recipe defaults = [] {
    Recipe recipe;
    recipe.phases.emplace_back();
    return recipe;
  }();
  return key.print(defaults, 0);
}

std::string describe_type(const Key& key) {
  switch (key.type) {
    case ValueType::text: return "text";
    case ValueType::boolean: return "yes or no";
    case ValueType::list: return "list, separated by commas";
    case ValueType::sources: return "paths, separated by commas, each with an optional :WEIGHT";
    case ValueType::choice: {
      std::string words;
      for (const std::string_view candidate : key.words) words += (words.empty() ? "" : " | ") + std::string(candidate);
      return words;
    }
    case ValueType::whole:
    case ValueType::real: break;
  }
  std::string text = key.type == ValueType::whole ? "whole number" : "number";
  if (key.low == kAboveZero)
    text += " above 0";
  else if (key.high == kAny || key.high == kMostWhole)
    text += fmt::format(", at least {}", rounded(key.low, 12));
  if (key.high != kAny && key.high != kMostWhole) {
    text += key.low == kAboveZero ? fmt::format(", at most {}", rounded(key.high, 12))
                                  : fmt::format(", {} to {}", rounded(key.low, 12), rounded(key.high, 12));
  }
  const std::string_view units = unit_suffixes(key.unit);
  if (!units.empty()) text += fmt::format("; units: {}", units);
  return text;
}

}  // namespace shoestring
