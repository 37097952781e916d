// A recipe: everything one run is, complete and typed. One struct per section of the file; no component reads
// another's section. How a file becomes a Recipe: parse.h; what must hold: validate.h; what a key means: explain.h.
//
// Units stand in the names. 0 or an empty string means "not given" only where the comment says so.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace shoestring {

/// Where a run trains; automatic: on a CUDA device where one is there, unless budget.hardware = cpu.
enum class RunDevice { automatic, cpu, cuda };

struct RunSpec {
  std::string name;       ///< names the run directory: letters, digits, '_', '-', '.'
  std::string directory;  ///< default runs/NAME
  std::string project;    ///< runs are summed by it (`report --all`); empty: the run's name
  std::uint64_t seed = 17;
  RunDevice device = RunDevice::automatic;
  int threads = 0;          ///< CPU threads of one rank; 0: cores this rank may use
  bool tensorboard = true;  ///< write event files beside metrics.jsonl
  double hang_after = 0;    ///< seconds without progress after which ranks are given up; 0: ten times the slowest step
  std::int64_t trace = 0;   ///< steps of each attempt whose actions go into RUN/trace.json
};

/// The cap is the least of those given; at least one must be.
struct BudgetSpec {
  double gpu_hours = 0;         ///< 0: no cap in GPU-hours
  double usd = 0;               ///< 0: no cap in money; needs usd_per_gpu_hour
  double kwh = 0;               ///< 0: no cap in energy; needs the hardware's power
  double job_hours = 0;         ///< 0: no limit on the wall-clock hours of one job (one launch)
  std::string hardware;         ///< recipes/hardware/NAME.hardware
  double usd_per_gpu_hour = 0;  ///< 0: no price; the report then shows no money
  std::string price_source;     ///< required beside a price
  std::string price_date;       ///< required beside a price, ISO 8601
  /// Shares of the cap ("80%") at which a line says how much is spent; warning.h.
  std::vector<std::string> warn_at = {"50%", "80%", "95%"};
};

enum class AllowReference { automatic, yes, no };

struct KernelsSpec {
  /// Whether plain reference kernels may run; automatic: where the processor has no vector row, unless a step would
  /// take more than ten times as long with them.
  AllowReference allow_reference = AllowReference::automatic;
  std::vector<std::string> pin;  ///< "op=variant"
};

enum class Architecture { llama, qwen2, qwen3, qwen3_moe, deepseek_v2, deepseek_v3 };
enum class RopeScalingKind { none, llama3, yarn };
enum class RouterKindSpec { softmax, sigmoid, sqrt_softplus };

/// Names follow the field; the Hugging Face key is in brackets where it differs.
struct ModelSpec {
  std::string from;  ///< a Hugging Face folder, or a run, whose weights the run begins with; empty: new weights
  Architecture architecture = Architecture::llama;
  std::int64_t vocabulary = 0;     ///< [vocab_size] 0: taken from the tokenizer, rounded up to a multiple of 64
  std::int64_t layers = 0;         ///< [num_hidden_layers]
  std::int64_t hidden = 0;         ///< [hidden_size]
  std::int64_t heads = 0;          ///< [num_attention_heads]
  std::int64_t kv_heads = 0;       ///< [num_key_value_heads] 0: as heads
  std::int64_t head_dim = 0;       ///< 0: hidden / heads
  std::int64_t feed_forward = 0;   ///< [intermediate_size] of dense layers
  std::int64_t max_positions = 0;  ///< [max_position_embeddings] 0: the longest phase's sequence
  bool tie_embeddings = false;     ///< [tie_word_embeddings]
  double norm_eps = 1e-6;          ///< [rms_norm_eps]
  double init_std = 0.006;         ///< [initializer_range]

  double rope_theta = 10000;
  RopeScalingKind rope_scaling = RopeScalingKind::none;
  double rope_factor = 1;
  std::int64_t rope_original_positions = 0;  ///< [original_max_position_embeddings]
  double rope_low_frequency_factor = 1;      ///< llama3
  double rope_high_frequency_factor = 4;     ///< llama3
  double rope_beta_fast = 32;                ///< yarn
  double rope_beta_slow = 1;                 ///< yarn
  double rope_mscale = 1;                    ///< yarn
  double rope_mscale_all_dim = 0;            ///< yarn

  // Multi-head latent attention (deepseek_v2, deepseek_v3).
  std::int64_t q_lora_rank = 0;  ///< 0: queries straight from the hidden state
  std::int64_t kv_lora_rank = 0;
  std::int64_t qk_nope_head_dim = 0;
  std::int64_t qk_rope_head_dim = 0;
  std::int64_t v_head_dim = 0;

  // Mixture of experts (qwen3_moe, deepseek_v2, deepseek_v3).
  std::int64_t experts = 0;              ///< [n_routed_experts, num_experts]
  std::int64_t experts_per_token = 0;    ///< [num_experts_per_tok]
  std::int64_t shared_experts = 0;       ///< [n_shared_experts]
  std::int64_t expert_feed_forward = 0;  ///< [moe_intermediate_size]
  std::int64_t dense_layers = 0;         ///< [first_k_dense_replace]
  std::int64_t expert_groups = 1;        ///< [n_group]
  std::int64_t expert_topk_groups = 1;   ///< [topk_group] routing limited to that many groups (nodes)
  RouterKindSpec router = RouterKindSpec::sigmoid;
  bool normalize_weights = true;  ///< [norm_topk_prob]
  double routed_scale = 1;        ///< [routed_scaling_factor]
  double bias_speed = 0.001;      ///< step of the auxiliary-loss-free balancing; 0 freezes the biases
  double balance_loss = 0.0001;   ///< weight of the sequence-wise balance loss

  // Multi-token prediction (deepseek_v3).
  std::int64_t mtp_layers = 0;  ///< [num_nextn_predict_layers] 0 or 1
  double mtp_weight = 0.3;      ///< weight of its loss
};

enum class PrecisionPolicy { fp64, fp32, bf16, fp8_block, fp8_tensor, mxfp8 };
enum class ScaleFormat { f32, power_of_two };
enum class LinearFormat { policy, bf16, fp32 };  ///< per-product override of the policy
enum class MomentFormat { f32, bf16 };
enum class DispatchFormat { activation, fp8 };

/// Defaults are DeepSeek-V3's (arXiv 2412.19437, section 3.3); every element is a key, because later work changed
/// several. The first group applies to low-precision policies only.
struct PrecisionSpec {
  PrecisionPolicy policy = PrecisionPolicy::bf16;
  ScaleFormat scales = ScaleFormat::f32;        ///< of activations, weights and gradients alike
  LinearFormat forward = LinearFormat::policy;  ///< per product: a fallback switch for ablation
  LinearFormat input_gradient = LinearFormat::policy;
  LinearFormat weight_gradient = LinearFormat::policy;
  bool gradients_e5m2 = false;   ///< activation gradients in E5M2 instead of E4M3
  bool cache_fp8 = true;         ///< keep activations of FP8 products in FP8 for the backward pass
  bool count_saturation = true;  ///< saturated and underflowed shares in the metrics
  bool native = false;           ///< a device without products in the policy's own format is refused

  MomentFormat moments = MomentFormat::f32;  ///< optimizer moments
  /// In which tokens go to their experts, and gradients of what comes back: as they are, or E4M3 in tiles of 1 x 128
  /// with power-of-two scales, also where all experts are on one rank, so that no layout changes a bit.
  DispatchFormat dispatch = DispatchFormat::activation;
};

/// As parallel/schedule_builders.h knows them; automatic: see schedule_of (core/training/layout.h).
enum class ScheduleName { automatic, one_f_one_b, interleaved, zb_h1, zb_v, dualpipev };

struct ParallelSpec {
  int pipeline = 1;
  int expert = 1;
  int data = 0;  ///< 0: all ranks left over
  ScheduleName schedule = ScheduleName::automatic;
  std::vector<std::string> stages;  ///< layers of each stage, in order; empty: as even as they divide
  int stages_per_rank = 2;          ///< of the interleaved schedule
  int reduction_groups = 0;      ///< groups of the canonical gradient reduction; 0: the data axis of the first attempt
  bool shard_optimizer = false;  ///< ranks that hold the same weights share the optimizer's state (ZeRO-1)
};

struct SourceSpec {
  std::string path;  ///< a shard or a folder of shards
  double weight = 1;
};

enum class DataIo { mmap, pread };

struct DataSpec {
  std::vector<SourceSpec> train;  ///< "PATH" or "PATH:WEIGHT, PATH:WEIGHT ..."
  std::vector<SourceSpec> validation;
  std::string tokenizer;      ///< a tokenizer file; default: the one beside the first training shard
  bool document_mask = true;  ///< documents packed into one sequence do not see each other
  double fim_rate = 0;        ///< share of documents rearranged for fill-in-the-middle (DeepSeek: 0.1)
  DataIo io = DataIo::mmap;
  int prefetch = 4;                      ///< micro-batches prepared ahead
  std::vector<std::string> mix;          ///< how train's weights change over a phase (data_mix.h); empty: they do not
  std::vector<std::string> most_epochs;  ///< of each training source in a phase; 0: any number; empty: no limits
  std::string stage;                     ///< a folder on a disk of the node, to which shards are copied; empty: none
  std::int64_t stage_bytes = 0;          ///< most that lies there; 0: what the disk has left, but for a tenth
};

enum class OptimizerName { adamw, muon };
/// Whose memory holds the optimizer's state; host: it passes through the device's, a piece at a time, in every update.
enum class StateMemory { device, host };

struct OptimizerSpec {
  OptimizerName name = OptimizerName::adamw;  ///< muon: matrices of the hidden layers; the rest stays with AdamW
  StateMemory state = StateMemory::device;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;  ///< of matrices; norms, biases and embeddings are not decayed
  double clip = 1.0;          ///< global gradient norm; 0: off
  double muon_momentum = 0.95;
  int muon_iterations = 5;
};

/// Low-rank adaptation (Hu et al., arXiv 2106.09685, section 4.1): the weights W of the model stay as they are, and a
/// projection computes with W + (alpha / rank) B A, of which A [rank, in] and B [out, rank] are trained.
struct LoraSpec {
  std::int64_t rank = 0;  ///< 0: all weights are trained
  double alpha = 0;       ///< 0: as rank
  /// Projections, as on disk: those of them that the model has.
  std::vector<std::string> targets = {
      "q_proj",    "k_proj",    "v_proj",  "o_proj",   "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa",
      "kv_b_proj", "gate_proj", "up_proj", "down_proj"};
  double factor() const { return alpha == 0 ? 1.0 : alpha / static_cast<double>(rank); }
};

enum class LearningRateKind { warmup_stable_decay, cosine, deepseek, constant };
enum class Horizon { budget, tokens, steps };

struct ScheduleSpec {
  LearningRateKind kind = LearningRateKind::warmup_stable_decay;
  Horizon horizon = Horizon::budget;  ///< budget: decay is re-planned from measured speed to end as the budget does
  double learning_rate = 3e-4;        ///< peak
  double final_fraction = 0.1;        ///< last rate over peak (wsd, cosine)
  std::int64_t warmup_steps = 0;
  double decay_fraction = 0.2;  ///< share of the horizon spent decaying (wsd); deepseek: cosine share is fixed
};

/// What a phase is trained on: every next token, or those that masked shards (of conversations) say are learned;
/// automatic: as its shards say, with next_token's mean.
enum class ObjectiveName { automatic, next_token, masked };
/// What the loss of a masked phase is the mean over.
enum class LossMean { tokens, documents };
/// Documents longer than a sample; automatic: split, in a masked phase drop.
enum class LongDocumentsSpec { automatic, split, cut, drop };

/// A part of the run with its own sequence length and batch; phases run in file order.
struct PhaseSpec {
  std::string name;
  std::string from{};  ///< as model.from, for this phase; empty: it goes on with the weights of the one before
  ObjectiveName objective = ObjectiveName::automatic;
  std::vector<SourceSpec> train{};         ///< empty: data.train
  std::vector<SourceSpec> validation{};    ///< empty: data.validation
  std::vector<std::string> mix{};          ///< empty: data.mix, where train is empty too
  std::vector<std::string> most_epochs{};  ///< empty: data.most_epochs, where train is empty too
  std::vector<std::string> suites{};       ///< empty: evaluation.suites
  bool lora = true;                        ///< with lora.rank: adapters are trained; false: all weights are
  double learning_rate = 0;                ///< peak; 0: schedule.learning_rate
  LossMean loss_mean = LossMean::tokens;
  LongDocumentsSpec long_documents = LongDocumentsSpec::automatic;
  std::int64_t patience = 0;           ///< evaluations in a row without a new best held-out loss that end it; 0: never
  std::int64_t sequence = 0;           ///< tokens per sequence
  std::int64_t micro_batch = 1;        ///< sequences per micro-batch
  std::int64_t global_batch = 0;       ///< sequences per optimizer step
  std::int64_t batch_ramp_from = 0;    ///< sequences per step at the start of a ramp; 0: no ramp
  std::int64_t batch_ramp_tokens = 0;  ///< tokens over which the batch grows to global_batch
  std::int64_t tokens = 0;             ///< length with horizon = tokens: samples * sequence
  std::int64_t steps = 0;              ///< length with horizon = steps
  double share = 1;                    ///< share of the budget with horizon = budget (normalised over phases)
};

struct EvaluationSpec {
  std::int64_t every_steps = 0;  ///< 0: only at the end
  std::int64_t tokens = 0;       ///< held-out tokens per evaluation; 0: all there are
  double cap_share = 0.1;        ///< most of the cap that one evaluation may take; a longer one is cut
  /// Files of questions with known answers (generation/suite.h), asked at the end of each phase; those together are an
  /// evaluation too.
  std::vector<std::string> suites;
};

struct CheckpointSpec {
  std::int64_t every_steps = 0;  ///< 0: not by steps
  double every_minutes = 30;     ///< 0: not by time
  int keep = 2;                  ///< verified checkpoints kept, the newest; see Snapshots::save
};

/// What is done when the loss stands out again right after a skipped step, on other data.
enum class OnRepeat { clip, go_back };

struct GuardSpec {
  double spike_sigmas = 6;  ///< a loss (gradient norm) beyond mean + that many sigmas is skipped once (clipped to it)
  int window = 128;         ///< steps the mean and sigma are taken over; active from half of it
  OnRepeat on_repeat =
      OnRepeat::clip;   ///< take the clipped step; or back to the last checkpoint, past the data between
  int skip_limit = 10;  ///< steps in a row that are not finite before the run ends
};

struct Recipe {
  RunSpec run;
  BudgetSpec budget;
  KernelsSpec kernels;
  ModelSpec model;
  PrecisionSpec precision;
  ParallelSpec parallel;
  DataSpec data;
  OptimizerSpec optimizer;
  LoraSpec lora;
  ScheduleSpec schedule;
  std::vector<PhaseSpec> phases;  ///< sections [phase.NAME], in file order
  EvaluationSpec evaluation;
  CheckpointSpec checkpoint;
  GuardSpec guard;
};

/// The adapters of a phase; rank 0 where it has none.
inline LoraSpec lora_of(const Recipe& recipe, const PhaseSpec& phase) { return phase.lora ? recipe.lora : LoraSpec{}; }
/// The suites of a phase.
inline const std::vector<std::string>& suites_of(const Recipe& recipe, const PhaseSpec& phase) {
  return phase.suites.empty() ? recipe.evaluation.suites : phase.suites;
}

}  // namespace shoestring
