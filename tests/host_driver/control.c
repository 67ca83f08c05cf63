/* For tests: what is alive, what was misused, which call fails next, and a fresh start. */
#include "driver.h"

#include <stdlib.h>
#include <string.h>

#define FAULTS 8
static struct {
  char function[64];
  int calls; /* until it fails; 0 is none */
  int times; /* that it fails then, one after the other */
  CUresult error;
} faults[FAULTS];

/* An illegal address or a failed launch poisons the context: every later call returns it. */
static int is_sticky(CUresult error) {
  return error == CUDA_ERROR_ILLEGAL_ADDRESS || error == CUDA_ERROR_LAUNCH_FAILED;
}

CUresult fault(const char *function) {
  for (int i = 0; i < FAULTS; i++) {
    if (!faults[i].calls || strcmp(faults[i].function, function)) continue;
    if (faults[i].calls > 1) {
      faults[i].calls--;
      continue;
    }
    if (!--faults[i].times) faults[i].calls = 0;
    if (is_sticky(faults[i].error) && depth) stack[depth - 1]->sticky = faults[i].error;
    return faults[i].error;
  }
  return CUDA_SUCCESS;
}

/* The n-th call of a function from now on fails, and those after it, so many times in all. */
API void host_driver_fail(const char *function, int calls, int times, int error) {
  lock();
  for (int i = 0; i < FAULTS; i++) {
    if (faults[i].calls) continue;
    strncpy(faults[i].function, function, sizeof faults[i].function - 1);
    faults[i].calls = calls;
    faults[i].times = times;
    faults[i].error = (CUresult)error;
    break;
  }
  unlock();
}

API void host_driver_limit(size_t bytes) { driver.limit_bytes = bytes; }

/* In the order of host_driver.py's Counts. */
API void host_driver_counts(long *into) {
  lock();
  long found[] = {driver.device_memory, driver.pinned_memory, driver.live_streams,
                  driver.live_events,   driver.graphs,        driver.executables,
                  driver.launches,      driver.pushed,        driver.misuses,
                  driver.contexts[0].references, driver.contexts[1].references,
                  (long)driver.used_bytes};
  memcpy(into, found, sizeof found);
  unlock();
}

API int host_driver_depth(void) { return depth; }

API int host_driver_initialized(void) { return driver.process != 0; }

API const char *host_driver_complaint(void) { return driver.misuses ? driver.complaint : ""; }

/* A fresh start for the next test: faults and complaints are gone, contexts healthy, and the memory
 * that was freed goes back to the host. What is still alive stays. */
API void host_driver_reset(void) {
  lock();
  memset(faults, 0, sizeof faults);
  driver.misuses = driver.launches = 0;
  driver.limit_bytes = (size_t)1 << 30;
  for (int i = 0; i < DEVICES; i++) driver.contexts[i].sticky = CUDA_SUCCESS;
  for (block **each = &driver.blocks; *each;) {
    block *old = *each;
    if (!old->given_back) {
      each = &old->next;
      continue;
    }
    *each = old->next;
    free(old->memory);
    free(old);
  }
  unlock();
}
