/* Device and pinned memory, both the host's, and the copies that do not go through a stream. */
#include "driver.h"

#include <stdlib.h>
#include <string.h>

block *block_at(const void *address, size_t bytes) {
  const char *first = address;
  for (block *each = driver.blocks; each; each = each->next)
    if (!each->given_back && first >= each->memory && first + bytes <= each->memory + each->bytes)
      return each;
  return NULL;
}

static void *allocate(size_t bytes, int pinned) {
  block *made = calloc(1, sizeof *made);
  made->memory = aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
  memset(made->memory, 0xA5, bytes);
  made->bytes = bytes;
  made->pinned = pinned;
  made->next = driver.blocks;
  driver.blocks = made;
  if (pinned) {
    driver.pinned_memory++;
  } else {
    driver.device_memory++;
    driver.used_bytes += bytes;
  }
  return made->memory;
}

/* Freed memory stays with us, overwritten, so that its address is not given out again. */
static CUresult give_back(const void *address, int pinned) {
  for (block *each = driver.blocks; each; each = each->next) {
    if (each->memory != address || each->given_back || each->pinned != pinned) continue;
    each->given_back = 1;
    memset(each->memory, 0xDD, each->bytes);
    if (pinned) {
      driver.pinned_memory--;
    } else {
      driver.device_memory--;
      driver.used_bytes -= each->bytes;
    }
    return CUDA_SUCCESS;
  }
  return misuse("free of memory that is not allocated", CUDA_ERROR_INVALID_VALUE);
}

/* After a sticky error a free fails, too; that somebody tried is all that is left to count. */
static CUresult give_back_anyway(const char *function, const void *address, int pinned) {
  CUresult broken = current(function);
  if (!broken) broken = fault(function);
  CUresult done = broken == CUDA_ERROR_INVALID_CONTEXT || broken == CUDA_ERROR_NOT_INITIALIZED
                      ? CUDA_SUCCESS
                      : give_back(address, pinned);
  return broken ? broken : done;
}

API CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) {
  NEED_CONTEXT;
  if (!bytes) RETURN(CUDA_ERROR_INVALID_VALUE);
  if (driver.used_bytes + bytes > driver.limit_bytes) RETURN(CUDA_ERROR_OUT_OF_MEMORY);
  *address = (CUdeviceptr)allocate(bytes, 0);
  RETURN(CUDA_SUCCESS);
}

API CUresult cuMemHostAlloc(void **address, size_t bytes, unsigned flags) {
  NEED_CONTEXT;
  if (!bytes) RETURN(CUDA_ERROR_INVALID_VALUE);
  *address = allocate(bytes, 1);
  RETURN(CUDA_SUCCESS);
}

API CUresult cuMemFree_v2(CUdeviceptr address) {
  lock();
  RETURN(give_back_anyway(__func__, (void *)address, 0));
}

API CUresult cuMemFreeHost(void *address) {
  lock();
  RETURN(give_back_anyway(__func__, address, 1));
}

API CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes) {
  NEED_CONTEXT;
  *free_bytes = driver.limit_bytes - driver.used_bytes;
  *total_bytes = driver.limit_bytes;
  RETURN(CUDA_SUCCESS);
}

static CUresult copy_now(void *to, const void *from, size_t bytes, const void *on_device) {
  block *found = block_at(on_device, bytes);
  if (bytes && (!found || found->pinned))
    return misuse("copy to or from memory that is not the device's", CUDA_ERROR_INVALID_VALUE);
  memcpy(to, from, bytes);
  return CUDA_SUCCESS;
}

API CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes) {
  NEED_CONTEXT;
  RETURN(copy_now((void *)to, from, bytes, (void *)to));
}

API CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes) {
  NEED_CONTEXT;
  RETURN(copy_now(to, (void *)from, bytes, (void *)from));
}
