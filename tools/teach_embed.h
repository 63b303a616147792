/* teach_embed.h - run a network over the photographs of a set and keep its embeddings of them. */
#ifndef TEACH_EMBED_H
#define TEACH_EMBED_H

#include "teach_set.h"
#include "views.h"

/* Fill in the embeddings, hashes and failures of all photographs that were not kept from an earlier time. The viewer's
 * session must have batch slots. EXIT_FINE, or the code to exit with after a complaint. */
int teach_embed(struct teach_set *set, const struct viewer *viewer, uint32_t batch);

#endif
