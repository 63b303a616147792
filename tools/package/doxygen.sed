# doxygen.sed - the header's plain comments in doxygen's marks: /* before a declaration, after a member, and a title.
1s|^/\*|/** @file|
s|^/\* ---- \(.*\) ---- \*/|/** @name \1 */|
s|^/\*$|/**|
s|^/\* |/** |
s|^\( *[^ /*].*[^ ]\) */\* |\1 /**< |
