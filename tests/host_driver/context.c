/* Devices, primary contexts with their counts of references, and a stack of contexts per thread. */
#include "driver.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

state driver = {.limit_bytes = (size_t)1 << 30};
__thread struct CUctx_st *stack[64];
__thread int depth;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

void lock(void) { pthread_mutex_lock(&mutex); }
void unlock(void) { pthread_mutex_unlock(&mutex); }

CUresult misuse(const char *what, CUresult error) {
  if (!driver.misuses++) snprintf(driver.complaint, sizeof driver.complaint, "%s", what);
  return error;
}

CUresult current(const char *function) {
  if (driver.process != getpid()) return misuse(function, CUDA_ERROR_NOT_INITIALIZED);
  if (!depth) return misuse(function, CUDA_ERROR_INVALID_CONTEXT);
  if (!stack[depth - 1]->alive) return misuse(function, CUDA_ERROR_CONTEXT_IS_DESTROYED);
  return stack[depth - 1]->sticky;
}

static CUresult initialized(void) {
  return driver.process == getpid() ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
}

static CUresult device(int index) {
  CUresult result = initialized();
  return result ? result : index < 0 || index >= DEVICES ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

/* CUDA does not survive a fork: a child of a process that called cuInit never gets it again. */
API CUresult cuInit(unsigned flags) {
  GUARD(driver.process && driver.process != getpid() ? CUDA_ERROR_NOT_INITIALIZED : CUDA_SUCCESS);
  driver.process = getpid();
  RETURN(CUDA_SUCCESS);
}

API CUresult cuDriverGetVersion(int *version) {
  *version = CUDA_VERSION;
  return CUDA_SUCCESS;
}

API CUresult cuDeviceGetCount(int *count) {
  GUARD(initialized());
  *count = DEVICES;
  RETURN(CUDA_SUCCESS);
}

API CUresult cuDeviceGet(CUdevice *handle, int index) {
  GUARD(device(index));
  *handle = index;
  RETURN(CUDA_SUCCESS);
}

API CUresult cuDeviceGetName(char *text, int size, CUdevice index) {
  GUARD(device(index));
  snprintf(text, (size_t)size, "Host memory %d", index);
  RETURN(CUDA_SUCCESS);
}

API CUresult cuDeviceGetPCIBusId(char *text, int size, CUdevice index) {
  GUARD(device(index));
  snprintf(text, (size_t)size, "0000:%02X:00.0", 0x41 - index); /* not in NVML's order */
  RETURN(CUDA_SUCCESS);
}

API CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice index) {
  GUARD(device(index));
  *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR   ? 8
           : attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR ? 6
           : attribute == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT     ? 16 + index
                                                                       : 0;
  RETURN(CUDA_SUCCESS);
}

API CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice index) {
  GUARD(device(index));
  *major = 8;
  *minor = 6;
  RETURN(CUDA_SUCCESS);
}

API CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice index) {
  GUARD(device(index));
  *bytes = driver.limit_bytes;
  RETURN(CUDA_SUCCESS);
}

API CUresult cuDevicePrimaryCtxRetain(CUcontext *handle, CUdevice index) {
  GUARD(device(index));
  struct CUctx_st *context = &driver.contexts[index];
  context->device = index;
  context->alive = 1;
  context->references++;
  *handle = context;
  RETURN(CUDA_SUCCESS);
}

API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice index) {
  GUARD(device(index));
  struct CUctx_st *context = &driver.contexts[index];
  if (!context->references)
    RETURN(misuse("primary context released too often", CUDA_ERROR_INVALID_CONTEXT));
  if (!--context->references) context->alive = 0;
  RETURN(CUDA_SUCCESS);
}

API CUresult cuCtxDetach(CUcontext context) {
  GUARD(CUDA_SUCCESS);
  RETURN(misuse("detach of a primary context", CUDA_ERROR_INVALID_CONTEXT));
}

API CUresult cuCtxPushCurrent_v2(CUcontext context) {
  GUARD(initialized());
  if (!context || !context->alive)
    RETURN(misuse("push of a dead context", CUDA_ERROR_CONTEXT_IS_DESTROYED));
  if (depth >= 64) RETURN(misuse("stack of contexts overflows", CUDA_ERROR_OUT_OF_MEMORY));
  stack[depth++] = context;
  driver.pushed++;
  RETURN(CUDA_SUCCESS);
}

API CUresult cuCtxPopCurrent_v2(CUcontext *context) {
  GUARD(initialized());
  if (!depth) RETURN(misuse("pop of an empty stack", CUDA_ERROR_INVALID_CONTEXT));
  depth--;
  driver.pushed--;
  if (context) *context = stack[depth];
  RETURN(CUDA_SUCCESS);
}

API CUresult cuCtxGetDevice(CUdevice *index) {
  NEED_CONTEXT;
  *index = stack[depth - 1]->device;
  RETURN(CUDA_SUCCESS);
}

API CUresult cuCtxSynchronize(void) {
  NEED_CONTEXT;
  CUresult failed = CUDA_SUCCESS;
  for (stream *each = driver.streams; each; each = each->next)
    if (each->alive && !each->capturing && !failed) failed = drain(each);
  RETURN(failed);
}

API CUresult cuGetErrorString(CUresult error, const char **text) {
  static __thread char said[40];
  snprintf(said, sizeof said, "CUDA error %d", error);
  *text = said;
  return CUDA_SUCCESS;
}
