# make: ./echovault.   make run: starts it on port 6379.   Needs a C11 compiler and make, nothing else.
# The rest: test, lint, asan, tsan, coverage, memcheck, fuzz, bench, lines, install, uninstall, clean.

CC ?= cc
CFLAGS ?= -O2 -g
PREFIX ?= /usr/local
# Tests mostly wait, so several run at once.
PYTEST_ARGS ?= -n 4

BIN = echovault
BUILD = build/release
WARNINGS = -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wconversion
STANDARD = -std=c11 -D_GNU_SOURCE -pthread
# What makes an overflow hard to use: a random place for the code, nothing writable that is run or jumped through, canaries
# on stacks, and libc's checks of lengths. HARDEN_CC= HARDEN_LD= builds without.
HARDEN_CC = -fPIE $(CANARIES) -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
CANARIES = -fstack-protector-strong
HARDEN_LD = -pie -Wl,-z,relro,-z,now,-z,noexecstack
# Calls between rooms are inlined by the linker, where the compiler brings what that takes: 4 to 10 % fewer instructions a command.
LTO := $(shell echo 'int main(void) { return 0; }' | $(CC) -Werror -flto=auto -ffat-lto-objects -x c -o /dev/null - 2>/dev/null && \
    echo -flto=auto -ffat-lto-objects)

SOURCES = $(wildcard *.c)
HEADERS = $(wildcard *.h)
OBJECTS = $(SOURCES:%.c=$(BUILD)/%.o)
# What every command runs through has canaries beside arrays of characters only: the strong form costs 3 to 5 % of its instructions, this 1 %.
$(patsubst %,$(BUILD)/%.o,echovault observe resp store strings uring): CANARIES = -fstack-protector
# Programs that test one room from within, linked with what it stands on.
UNIT_TESTS = $(patsubst tests/%.c,$(BUILD)/%,$(wildcard tests/test_*.c))

$(BIN): $(OBJECTS)
	$(CC) $(STANDARD) $(HARDEN_CC) $(LTO) $(CFLAGS) $(HARDEN_LD) $(LDFLAGS) -o $@ $(OBJECTS) $(LDLIBS)

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(BUILD)
	$(CC) $(STANDARD) $(WARNINGS) $(HARDEN_CC) $(LTO) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/rooms.a: $(filter-out $(BUILD)/echovault.o,$(OBJECTS))
	$(AR) rcs $@ $^

$(BUILD)/test_%: tests/test_%.c $(BUILD)/rooms.a
	$(CC) $(STANDARD) $(WARNINGS) -I. $(HARDEN_CC) $(CPPFLAGS) $(CFLAGS) $(HARDEN_LD) $(LDFLAGS) -o $@ $^ $(LDLIBS)

-include $(OBJECTS:.o=.d)

.PHONY: run test asan tsan coverage memcheck fuzz bench lint warnings format cppcheck tidy objects lines install uninstall clean

run: $(BIN)
	./$(BIN) --port 6379

# TESTS=tests/test_ttl.py or PYTEST_ARGS='-k expire -x' choose among the tests.
TESTS ?= tests
test: $(BIN) $(UNIT_TESTS)
	@set -e; for program in $(UNIT_TESTS); do $$program; done
	@python=$$(tests/setup.sh) && ECHOVAULT_BIN=./$(BIN) $$python -m pytest -c tests/pytest.ini $(PYTEST_ARGS) $(TESTS)

comma = ,
# The whole suite against a build that watches itself: libc's checks would stand before the sanitizers' own.
SANITIZED = $(MAKE) --no-print-directory test HARDEN_CC= HARDEN_LD= LTO= CFLAGS="-O1 -g -fno-omit-frame-pointer $(1)" LDFLAGS="$(LDFLAGS) $(1)"
# A blob's pointer stands in its entry behind the key, wherever that ends.
asan: export LSAN_OPTIONS = use_unaligned=1
asan:
	+$(call SANITIZED,-fsanitize=address$(comma)undefined $(COVERAGE)) BIN=echovault-asan BUILD=build/asan

tsan:
	+$(call SANITIZED,-fsanitize=thread) BIN=echovault-tsan BUILD=build/tsan

# Which lines that suite runs. A server that is killed does not say what it ran, so the figure is on the low side.
coverage: COVERAGE = --coverage
coverage: asan
	gcovr --root . --object-directory build/asan --exclude 'tests/.*' --fail-under-line 90 --print-summary

# Some of it under valgrind, which sees what is used before it is set. It has no long double, which floats here need, and
# does not see what the kernel writes by io_uring.
MEMCHECKED = strings transactions keys ttl pubsub
memcheck: $(BIN)
	@mkdir -p build
	@printf '#!/bin/sh\nexec valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite %s "$$@" --io-uring no\n' \
	    $(CURDIR)/$(BIN) >build/echovault-memcheck-san
	@chmod +x build/echovault-memcheck-san
	@python=$$(tests/setup.sh) && ECHOVAULT_BIN=build/echovault-memcheck-san $$python -m pytest -c tests/pytest.ini \
	    $(PYTEST_ARGS) -k 'not float and not FLOAT' $(MEMCHECKED:%=tests/test_%.py)

# Each target of tests/fuzz under the sanitizers for so many seconds; needs clang.
FUZZ_SECONDS ?= 60
fuzz:
	+@python=$$(EXTRA_PACKAGES="clang libclang-rt-14-dev" tests/setup.sh) && \
	    $(MAKE) --no-print-directory -s -C tests/fuzz fuzz PYTHON=$$python FUZZ_SECONDS=$(FUZZ_SECONDS)

bench: $(BIN)
	@python=$$(OPTIONAL_PACKAGES="memcached python3-matplotlib" tests/setup.sh) && $$python tests/bench.py $(BENCH_ARGS)

# Both compilers' warnings as errors, here and not in the build, which a newer compiler's warnings must not break.
# What the other checks leave out, and why:
#   easily-swappable-parameters: two neighbours of one type are what most functions have.
#   implicit-widening-of-multiplication-result: finds 64 * 1024 where a size_t is wanted.
#   misplaced-widening-cast, narrowing-conversions: -Wconversion sees to that.
#   not-null-terminated-result: strings here have lengths.
#   reserved-identifier: _GNU_SOURCE.
#   sizeof-expression: finds arrays of pointers.
#   suspicious-string-compare: finds !strcmp().
#   Padding: fields stand in the order in which they are understood.
#   DeprecatedOrUnsafeBufferHandling: wants memcpy_s, which libc does not have.
#   cppcheck's uninitvar takes arrays that the callee fills for uninitialised, and its missingReturn does not know
#   which functions exit; the compilers and the analyzer look for both.
BUGPRONE_OFF = easily-swappable-parameters implicit-widening-of-multiplication-result misplaced-widening-cast \
    narrowing-conversions not-null-terminated-result reserved-identifier sizeof-expression suspicious-string-compare
ANALYZER_OFF = optin.performance.Padding security.insecureAPI.DeprecatedOrUnsafeBufferHandling
space = $(subst ,, )
TIDY = $(subst $(space),$(comma),-* bugprone-* clang-analyzer-* \
    $(BUGPRONE_OFF:%=-bugprone-%) $(ANALYZER_OFF:%=-clang-analyzer-%))
CPPCHECK = --quiet --enable=warning,performance,portability --inline-suppr --suppress=uninitvar \
    --suppress=ctuuninitvar --suppress=missingReturn --error-exitcode=1
ALL_C = $(SOURCES) $(wildcard tests/*.c tests/bench/*.c)

lint: warnings format cppcheck tidy lines

warnings:
	$(MAKE) CC=gcc BUILD=build/gcc CFLAGS="-O2 -g -Werror" objects
	$(MAKE) CC=clang BUILD=build/clang CFLAGS="-O2 -g -Werror" objects

format:
	clang-format --dry-run --Werror $(ALL_C) $(HEADERS) $(wildcard tests/fuzz/*.[ch])

cppcheck:
	cppcheck $(CPPCHECK) --std=c11 -D_GNU_SOURCE -I. $(ALL_C)

tidy:
	printf '%s\n' $(ALL_C) | xargs -P 4 -I FILE \
	    clang-tidy --quiet --warnings-as-errors='*' --checks='$(TIDY)' FILE -- $(STANDARD) -I.

objects: $(OBJECTS) $(UNIT_TESTS)

# A server that is to be read in a day: 7,000 lines are the aim, and this only ever goes down until it is met.
LINES_MAX = 11500
lines:
	@wc -l $(SOURCES) $(HEADERS) | awk '{ print } END { if ($$1 > $(LINES_MAX)) { print "more than $(LINES_MAX) lines of C"; exit 1 } }'

# What goes where. systemd and bash look in these folders of /usr and /usr/local.
INSTALLED = $(addprefix $(DESTDIR)$(PREFIX)/,bin/echovault share/man/man1/echovault.1 \
    lib/systemd/system/echovault.service share/bash-completion/completions/echovault)

install: $(BIN)
	install -d $(dir $(INSTALLED))
	install -m 755 $(BIN) $(word 1,$(INSTALLED))
	install -m 644 dist/echovault.1 $(word 2,$(INSTALLED))
	sed 's|/usr/local/bin|$(PREFIX)/bin|' dist/echovault.service >$(word 3,$(INSTALLED))
	chmod 644 $(word 3,$(INSTALLED))
	install -m 644 dist/echovault.bash $(word 4,$(INSTALLED))

uninstall:
	rm -f $(INSTALLED)

clean:
	rm -rf build echovault echovault-asan echovault-tsan
