/* commands.h - the functions behind the command table's rows. */
#ifndef COMMANDS_H
#define COMMANDS_H

#include "echovault.h"

#define ROW(group, name, fn, ...) command_fn fn;
#define CONTAINER(...)
#include "table.h"
#undef ROW
#undef CONTAINER

#endif
