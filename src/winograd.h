/*
 * winograd.h - 3x3 convolutions with stride 1 by Winograd's F(4x4, 3x3): 36 products where the sum above takes 144.
 *
 * Lavin, Gray: Fast Algorithms for Convolutional Neural Networks. A tile of 4x4 outputs Y comes from the 6x6 patch d of
 * inputs that it sees and the 3x3 filter g of each pair of channels:
 *
 *     Y = A' [ sum over channels of (G g G') * (B' d B) ] A        (X' is the transpose; * goes element by element)
 *
 * The filters are transformed in double when a model is loaded; each of the 36 elements is then a matrix product over
 * the channels, for which the convolution tile of kernels.h serves. It rounds more than the direct sum, by about a
 * factor of ten: logits stay within 1e-5 of the largest.
 *
 * With many channels the maps are small and the weights are many: those of 36 elements would take longer to come from
 * memory than their products take. There, F(4x2, 3x3) has 24 elements for 72 products of the sum, and F(2x2, 3x3) 16
 * for 36.
 */
#ifndef WINOGRAD_H
#define WINOGRAD_H

#include "execute.h"
#include "split.h"

/* Whether this layer takes this way: a property of the layer alone, so that results never depend on batch or threads.
 */
bool winograd_suits(const struct node *node, enum format format);

/* Floats of the packed filters for kernels of `nr` channels a tile. */
size_t winograd_size(const struct node *node, uint32_t nr);

/*
 * Pack the panels `which` of a node from direct ones of folded weights (struct conv_tile), of which `panels` is the
 * first. Packed are: the biases, [out] rounded up to nr, then for each element of a tile panels with a bias of zero
 * and one weight a channel. No row of G adds up to more than 1, so what was finite stays finite.
 */
void winograd_pack(const struct node *node, const float *panels, struct span which, uint32_t nr, float *packed);

/* Floats that a thread needs besides. */
size_t winograd_scratch(const struct node *node, const struct format_kernels *kernels);

/* As execute, for a step whose `panels` come from winograd_pack. */
void winograd(const struct step *step, uint32_t index, uint32_t count);

#endif
