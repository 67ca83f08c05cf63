/* Streams that do nothing until they are waited for, events in them, and one kernel: doubling. */
#include "driver.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

stream *stream_of(CUstream handle) {
  for (stream *each = driver.streams; each; each = each->next)
    if (each == (stream *)handle && each->alive) return each;
  return NULL;
}

#define LIVE(name, handle)                                                                     \
  stream *name = stream_of(handle);                                                            \
  if (!name) RETURN(misuse("the default stream, or one that is not alive", CUDA_ERROR_INVALID_HANDLE))

void enqueue(stream *into, op what) {
  op *made = malloc(sizeof *made), **end = into->capturing ? &into->captured : &into->queue;
  *made = what;
  made->next = NULL;
  while (*end) end = &(*end)->next;
  *end = made;
}

void forget_ops(op *first) {
  while (first) {
    op *next = first->next;
    free(first);
    first = next;
  }
}

/* What the device does: everything it touches must be allocated at this moment. */
static CUresult perform(const op *what) {
  if (what->kind == RECORD) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    what->event->ms = now.tv_sec * 1e3 + now.tv_nsec * 1e-6;
    what->event->done = 1;
    return CUDA_SUCCESS;
  }
  if (what->bytes && (!block_at(what->to, what->bytes) || !block_at(what->from, what->bytes) ||
                      (what->scratch && !block_at(what->scratch, what->bytes))))
    return misuse("work touches memory that is not, or no longer, allocated",
                  CUDA_ERROR_ILLEGAL_ADDRESS);
  if (what->kind == COPY) {
    memmove(what->to, what->from, what->bytes);
    return CUDA_SUCCESS;
  }
  float *to = (float *)what->to, *scratch = (float *)what->scratch;
  const float *from = (const float *)what->from;
  for (size_t i = 0; i < what->bytes / sizeof *to; i++) {
    if (scratch) scratch[i] = 2 * from[i];
    to[i] = scratch ? scratch[i] : 2 * from[i];
  }
  return CUDA_SUCCESS;
}

CUresult drain(stream *of) {
  CUresult failed = CUDA_SUCCESS;
  while (of->queue && !failed) {
    op *first = of->queue;
    of->queue = first->next;
    failed = perform(first);
    free(first);
  }
  if (failed == CUDA_ERROR_ILLEGAL_ADDRESS && depth) stack[depth - 1]->sticky = failed;
  return failed;
}

API CUresult cuStreamCreate(CUstream *handle, unsigned flags) {
  NEED_CONTEXT;
  stream *made = calloc(1, sizeof *made);
  made->alive = 1;
  made->next = driver.streams;
  driver.streams = made;
  driver.live_streams++;
  *handle = (CUstream)made;
  RETURN(CUDA_SUCCESS);
}

API CUresult cuStreamDestroy_v2(CUstream handle) {
  lock();
  LIVE(found, handle);
  CUresult broken = current(__func__);
  found->alive = 0; /* its work would still be done: forgetting it shows who relied on that */
  forget_ops(found->queue);
  found->queue = NULL;
  driver.live_streams--;
  RETURN(broken);
}

API CUresult cuStreamSynchronize(CUstream handle) {
  NEED_CONTEXT;
  LIVE(found, handle);
  if (found->capturing) {
    found->invalid = 1;
    RETURN(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
  RETURN(drain(found));
}

API CUresult cuStreamQuery(CUstream handle) {
  NEED_CONTEXT;
  LIVE(found, handle);
  RETURN(found->queue ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS);
}

/* Asynchronous only from and to pinned memory; from other memory CUDA copies in its own time. */
static CUresult copy(char *to, const char *from, size_t bytes, CUstream handle) {
  stream *found = stream_of(handle);
  if (!found) return misuse("copy in a stream that is not alive", CUDA_ERROR_INVALID_HANDLE);
  if (bytes && (!block_at(to, bytes) || !block_at(from, bytes)))
    return misuse("copy of memory that is not allocated or not pinned", CUDA_ERROR_INVALID_VALUE);
  enqueue(found, (op){.kind = COPY, .to = to, .from = from, .bytes = bytes});
  return CUDA_SUCCESS;
}

API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream in) {
  NEED_CONTEXT;
  RETURN(copy((char *)to, from, bytes, in));
}

API CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream in) {
  NEED_CONTEXT;
  RETURN(copy(to, (const char *)from, bytes, in));
}

API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream in) {
  NEED_CONTEXT;
  RETURN(copy((char *)to, (const char *)from, bytes, in));
}

/* A plan's work: to = 2 * from. Not CUDA's; what stands for TensorRT calls it. */
API CUresult host_driver_double(CUstream in, void *to, const void *from, void *scratch, size_t bytes) {
  NEED_CONTEXT;
  LIVE(found, in);
  if ((size_t)from % ALIGNMENT || (size_t)to % ALIGNMENT)
    RETURN(misuse("a kernel's memory is not aligned", CUDA_ERROR_MISALIGNED_ADDRESS));
  enqueue(found, (op){.kind = DOUBLE, .to = to, .from = from, .scratch = scratch, .bytes = bytes});
  RETURN(CUDA_SUCCESS);
}

static event *event_of(CUevent handle) {
  for (event *each = driver.events; each; each = each->next)
    if (each == (event *)handle) return each;
  return NULL;
}

API CUresult cuEventCreate(CUevent *handle, unsigned flags) {
  NEED_CONTEXT;
  event *made = calloc(1, sizeof *made);
  made->next = driver.events;
  driver.events = made;
  driver.live_events++;
  *handle = (CUevent)made;
  RETURN(CUDA_SUCCESS);
}

API CUresult cuEventDestroy_v2(CUevent handle) {
  lock();
  driver.live_events--; /* the memory stays until the reset: a queue may name it */
  RETURN(current(__func__));
}

API CUresult cuEventRecord(CUevent handle, CUstream in) {
  NEED_CONTEXT;
  LIVE(found, in);
  event *which = event_of(handle);
  which->recorded = 1;
  which->done = 0;
  enqueue(found, (op){.kind = RECORD, .event = which});
  RETURN(CUDA_SUCCESS);
}

API CUresult cuEventElapsedTime(float *ms, CUevent first, CUevent second) {
  NEED_CONTEXT;
  event *from = event_of(first), *to = event_of(second);
  if (!from->recorded || !to->recorded)
    RETURN(misuse("time between events that were not recorded", CUDA_ERROR_INVALID_HANDLE));
  if (!from->done || !to->done) RETURN(CUDA_ERROR_NOT_READY);
  *ms = (float)(to->ms - from->ms);
  RETURN(CUDA_SUCCESS);
}
