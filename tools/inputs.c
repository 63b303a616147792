/* inputs.c - the images that a command line names, one after the other. */
#include "inputs.h"

#include <string.h>

#include "system.h"

int inputs_stdin_uses(const char *list, int count, char **operands) {
    int uses = list && strcmp(list, "-") == 0;
    for (int i = 0; i < count; i++)
        uses += strcmp(operands[i], "-") == 0;
    return uses;
}

bool inputs_open(struct inputs *inputs, char **operands, int count, const char *list) {
    inputs->operands = operands;
    inputs->count = count;
    inputs->next = 0;
    inputs->listed = list != NULL;
    inputs->lines.failed = false;
    inputs->lines.number = 0;
    return !list || lines_open(&inputs->lines, list);
}

void inputs_close(struct inputs *inputs) {
    if (inputs->listed)
        lines_close(&inputs->lines);
}

char *inputs_next(struct inputs *inputs, bool *is_stdin) {
    *is_stdin = false;
    if (inputs->next < inputs->count) {
        const char *operand = inputs->operands[inputs->next++];
        *is_stdin = strcmp(operand, "-") == 0;
        return copy_text(operand);
    }
    return inputs->listed && lines_next(&inputs->lines) ? copy_text(inputs->lines.text) : NULL;
}

bool inputs_ready(const struct inputs *inputs) {
    return inputs->next < inputs->count || (inputs->listed && lines_ready(&inputs->lines));
}
