/* Capture of a stream, and graphs of what was captured: addresses are baked in, as in CUDA. */
#include "driver.h"

#include <stdlib.h>

API CUresult cuStreamBeginCapture_v2(CUstream handle, CUstreamCaptureMode mode) {
  NEED_CONTEXT;
  stream *found = stream_of(handle);
  if (!found) RETURN(misuse("capture of a stream that is not alive", CUDA_ERROR_INVALID_HANDLE));
  if (found->capturing) RETURN(CUDA_ERROR_ILLEGAL_STATE);
  found->capturing = 1;
  found->invalid = 0;
  RETURN(CUDA_SUCCESS);
}

/* The stream captures no longer afterwards, whatever this returns. */
API CUresult cuStreamEndCapture(CUstream handle, CUgraph *made) {
  lock();
  CUresult failed = current(__func__);
  stream *found = stream_of(handle);
  *made = NULL;
  if (failed) RETURN(failed);
  if (!found || !found->capturing) RETURN(CUDA_ERROR_ILLEGAL_STATE);
  op *captured = found->captured;
  found->capturing = 0;
  found->captured = NULL;
  failed = found->invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : fault(__func__);
  if (failed) {
    forget_ops(captured);
    RETURN(failed);
  }
  graph *kept = calloc(1, sizeof *kept);
  kept->ops = captured;
  driver.graphs++;
  *made = (CUgraph)kept;
  RETURN(CUDA_SUCCESS);
}

API CUresult cuGraphInstantiateWithFlags(CUgraphExec *made, CUgraph from, unsigned long long flags) {
  NEED_CONTEXT;
  graph *copy = calloc(1, sizeof *copy);
  op **end = &copy->ops;
  for (const op *each = ((graph *)from)->ops; each; each = each->next) {
    *end = malloc(sizeof **end);
    **end = *each;
    (*end)->next = NULL;
    end = &(*end)->next;
  }
  driver.executables++;
  *made = (CUgraphExec)copy;
  RETURN(CUDA_SUCCESS);
}

static void discard(graph *which) {
  forget_ops(which->ops);
  free(which);
}

/* After a sticky error these fail, too; that somebody tried is what is counted. */
API CUresult cuGraphDestroy(CUgraph which) {
  lock();
  driver.graphs--;
  discard((graph *)which);
  RETURN(current(__func__));
}

API CUresult cuGraphExecDestroy(CUgraphExec which) {
  lock();
  driver.executables--;
  discard((graph *)which);
  RETURN(current(__func__));
}

API CUresult cuGraphLaunch(CUgraphExec which, CUstream in) {
  NEED_CONTEXT;
  stream *found = stream_of(in);
  if (!found) RETURN(misuse("launch in a stream that is not alive", CUDA_ERROR_INVALID_HANDLE));
  driver.launches++;
  for (const op *each = ((graph *)which)->ops; each; each = each->next) enqueue(found, *each);
  RETURN(CUDA_SUCCESS);
}
