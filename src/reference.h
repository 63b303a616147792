/* reference.h - the reference executor: plain C, one naive kernel per operation, nothing folded, packed or fused. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include "execute.h"

/* Compute a node for all images, where step->panels holds the node's tensors as in the model file. */
void reference_execute(const struct step *step, float epsilon);

#endif
