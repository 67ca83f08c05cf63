/* A CUDA driver whose device is the host's memory: as much of libcuda.so.1 as PyCUDA and CUDA
 * graphs need, for tests. It is as unhelpful as CUDA's rules allow:
 *
 *   - a stream is lazy: what is put into it runs when somebody waits for the stream, not before;
 *   - memory is checked when it is touched: after a free, or outside an allocation, it is a misuse;
 *   - freed memory is overwritten, new memory holds rubbish;
 *   - a call without a current context, with a dead handle or out of turn is a misuse.
 *
 * A misuse returns the error that CUDA would return and is counted, so that a test can hold the
 * count to zero even where somebody swallowed the error. control.c lets tests count, fail and reset.
 *
 * What it cannot show: real kernels, time, two streams side by side, unified memory, and whatever
 * NVIDIA's driver does that its documentation does not say.
 */
#ifndef HOST_DRIVER_H
#define HOST_DRIVER_H
#define _GNU_SOURCE
#include <cuda.h>
#include <stddef.h>
#include <sys/types.h>

#define API __attribute__((visibility("default")))
#define DEVICES 2
#define ALIGNMENT 256 /* of device memory, and what TensorRT demands of an input */

/* One device's primary context: PyCUDA makes no other kind here. */
struct CUctx_st {
  int device, references, alive;
  CUresult sticky; /* an error that every later call returns, as after an illegal address */
};

typedef struct event {
  int recorded, done;
  double ms;
  struct event *next;
} event;

typedef struct op {
  enum { COPY, DOUBLE, RECORD } kind;
  char *to;
  const char *from;
  char *scratch; /* DOUBLE passes its values through here, where it is given */
  size_t bytes;
  event *event;
  struct op *next;
} op;

typedef struct stream {
  int alive, capturing, invalid;
  op *queue, *captured;
  struct stream *next;
} stream;

typedef struct graph {
  op *ops;
} graph;

typedef struct block {
  char *memory;
  size_t bytes;
  int pinned, given_back;
  struct block *next;
} block;

typedef struct state {
  pid_t process; /* that called cuInit; 0 before */
  struct CUctx_st contexts[DEVICES];
  block *blocks;
  stream *streams;
  event *events;
  long device_memory, pinned_memory, live_streams, live_events, graphs, executables, launches;
  long pushed;   /* contexts on the stacks of all threads together */
  long misuses;
  size_t used_bytes, limit_bytes;
  char complaint[512]; /* the first misuse */
} state;

extern state driver;
extern __thread struct CUctx_st *stack[64];
extern __thread int depth;

/* Every entry point locks, and asks control.c whether this call is to fail. */
void lock(void);
void unlock(void);
CUresult fault(const char *function);
CUresult misuse(const char *what, CUresult error);
/* CUDA_SUCCESS in a process that called cuInit, with a healthy context current. */
CUresult current(const char *function);

#define GUARD(check)                      \
  do {                                    \
    lock();                               \
    CUresult guard = (check);             \
    if (!guard) guard = fault(__func__);  \
    if (guard) {                          \
      unlock();                           \
      return guard;                       \
    }                                     \
  } while (0)
#define NEED_CONTEXT GUARD(current(__func__))
#define RETURN(value)            \
  do {                           \
    CUresult result = (value);   \
    unlock();                    \
    return result;               \
  } while (0)

block *block_at(const void *address, size_t bytes);
stream *stream_of(CUstream handle);
void enqueue(stream *into, op what);
CUresult drain(stream *of);
void forget_ops(op *first);

#endif
