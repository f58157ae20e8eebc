/* A stand-in for libedgetpu: the external delegate interface of TensorFlow Lite, and as much of the interpreter's C
   structures as it takes (their order is stable by their own documentation). It takes over every operation of the
   graph and gives the negative of the int8 input. FAULT chooses, at compilation, what goes wrong instead. */
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { int size; int data[]; } IntArray;
typedef struct {
  int type; int8_t *data; IntArray *dims; float scale; int32_t zero_point; int allocation_type; size_t bytes;
  const void *allocation; const char *name; void *delegate; int buffer_handle; bool stale, variable;
  int quantization_type; void *quantization; void *sparsity; const IntArray *dims_signature;
} Tensor;
typedef struct { IntArray *inputs, *outputs; } Node;
typedef struct Context Context;
typedef struct {
  void *(*init)(Context *, const char *, size_t); void (*free)(Context *, void *);
  int (*prepare)(Context *, Node *); int (*invoke)(Context *, Node *); const char *(*profile)(void);
  int32_t builtin_code; const char *custom_name; int version; void *external, *async; uint64_t inplace;
} Registration;
typedef struct {
  void *data; int (*prepare)(Context *, void *); void *copy_from, *copy_to, *free_buffer; int64_t flags; void *builder;
} Delegate;
struct Context {
  size_t tensors_size; int (*plan)(Context *, IntArray **); Tensor *tensors; void *impl, *resize, *report, *add;
  void *node; int (*replace)(Context *, Registration, const IntArray *, Delegate *);
};

static int invoke(Context *context, Node *node) {
  Tensor *from = &context->tensors[node->inputs->data[0]], *to = &context->tensors[node->outputs->data[0]];
  for (size_t i = 0; i < to->bytes; i++) to->data[i] = -from->data[i];
  return 0;
}

static int prepare(Context *context, void *delegate) {
  IntArray *plan;
  if (context->plan(context, &plan)) return 1;
  size_t size = sizeof(int) * (plan->size + 1);
  IntArray *all = memcpy(malloc(size), plan, size);
  Registration kernel = {.invoke = invoke, .custom_name = "fake", .version = 1};
  int status = context->replace(context, kernel, all, delegate);
  free(all);
  return status;
}

/* The compiled operation stays unresolved then. */
static int take_nothing(Context *context, void *delegate) { return 0; }

void *tflite_plugin_create_delegate(char **keys, char **values, size_t n, void (*report)(const char *)) {
#if FAULT == 1
  raise(SIGSEGV);
#elif FAULT == 2
  return NULL; /* no device, and no word about it, as libedgetpu does */
#elif FAULT == 3
  pause();
#endif
  /* Only usb:0 is attached. */
  for (size_t i = 0; i < n; i++)
    if (!strcmp(keys[i], "device") && strcmp(values[i], "usb:0")) {
      report("no such device");
      return NULL;
    }
  Delegate *delegate = calloc(1, sizeof *delegate);
  delegate->flags = 1; /* AllowDynamicTensors, as libedgetpu has it: it is asked before the custom operation is prepared */
  delegate->prepare = FAULT == 4 ? take_nothing : prepare;
  return delegate;
}

void tflite_plugin_destroy_delegate(void *delegate) { free(delegate); }
