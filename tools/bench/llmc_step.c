// One training step of llm.c's GPT-2 124M on the CPU, for `shoestring bench step --llm-c DIR`.
//
// Compiled with -DTESTING, so that DIR/train_gpt2.c leaves out its main. Builds the model with random weights as
// gpt2_build_from_checkpoint would from a file. Says "ready NAME" once built; then for each line "step" on its input
// does one whole step (forward, backward, AdamW) and answers with the seconds it took.
//
//     llmc_step TOKENS BATCH SEQUENCE
//
// TOKENS: a file of little-endian int32 ids.
#include "train_gpt2.c"

static float small_random(uint64_t* state) {  // uniform with a deviation of 0.02
  *state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
  return ((float)(*state >> 40) / (float)(1 << 24) - 0.5f) * 0.0693f;
}

static void build(GPT2* model) {
  memset(model, 0, sizeof(*model));
  model->config = (GPT2Config){.max_seq_len = 1024,
                               .vocab_size = 50257,
                               .padded_vocab_size = 50304,
                               .num_layers = 12,
                               .num_heads = 12,
                               .channels = 768};
  fill_in_parameter_sizes(model->param_sizes, model->config);
  for (int i = 0; i < NUM_PARAMETER_TENSORS; i++) model->num_parameters += model->param_sizes[i];
  model->params_memory = malloc_and_point_parameters(&model->params, model->param_sizes);
  uint64_t state = 17;
  for (size_t i = 0; i < model->num_parameters; i++) model->params_memory[i] = small_random(&state);
  const int gains[] = {2, 8, 14};
  float* const gain_of[] = {model->params.ln1w, model->params.ln2w, model->params.lnfw};
  for (int g = 0; g < 3; g++) {
    for (size_t i = 0; i < model->param_sizes[gains[g]]; i++) gain_of[g][i] = 1.0f;
  }
  model->mean_loss = -1.0f;
}

static double seconds_now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

int main(int argc, char** argv) {
  if (argc != 4) return 64;
  const size_t batch = (size_t)atoi(argv[2]);
  const size_t sequence = (size_t)atoi(argv[3]);
  const size_t size = batch * sequence;
  FILE* file = fopenCheck(argv[1], "rb");
  fseekCheck(file, 0, SEEK_END);
  const size_t count = (size_t)ftell(file) / sizeof(int);
  fseekCheck(file, 0, SEEK_SET);
  int* tokens = (int*)mallocCheck(count * sizeof(int));
  freadCheck(tokens, sizeof(int), count, file);
  fcloseCheck(file);

  // What train_gpt2.c prints itself goes to the error output.
  FILE* answers = fdopen(dup(1), "w");
  dup2(2, 1);

  GPT2 model;
  build(&model);
  fprintf(answers, "ready llm.c\n");
  fflush(answers);
  char line[64];
  size_t at = 0;
  int number = 0;
  while (fgets(line, sizeof(line), stdin) != NULL && strcmp(line, "step\n") == 0) {
    if (at + size + 1 > count) at = 0;
    const double begin = seconds_now();
    gpt2_forward(&model, tokens + at, tokens + at + 1, batch, sequence);
    gpt2_zero_grad(&model);
    gpt2_backward(&model);
    gpt2_update(&model, 3e-4f, 0.9f, 0.95f, 1e-8f, 0.1f, ++number);
    fprintf(answers, "%.6f\n", seconds_now() - begin);
    fflush(answers);
    fprintf(stderr, "loss %.4f\n", (double)model.mean_loss);
    at += size;
  }
  return 0;
}
