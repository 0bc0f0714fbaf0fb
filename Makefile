# shard_fdw - one foreign table takes the inserts, many tables share the rows
#
#   make demo             set up, build, and see it work in a private cluster
#   make example          the same for a worked example of commit order
#   make test             set up, build, and run all tests
#   make bench            the same for the benchmark
#   make test-matrix      all tests on each PostgreSQL (MATRIX=trixie: on one)
#   make test-assert      all tests on a server with assertions
#   make test-sanitize    the SQL tests under the sanitizers
#   make check-static     compilers, analyzers, and formatting
#   make, make install    build and install for the PostgreSQL of PG_CONFIG

EXTENSION = shard_fdw
EXTVERSION = 1.0

MODULE_big = shard_fdw
OBJS = \
	src/admin.o \
	src/advice.o \
	src/batch.o \
	src/checks.o \
	src/clone.o \
	src/column_type.o \
	src/command.o \
	src/conflict.o \
	src/consumer.o \
	src/core_exec.o \
	src/cursor.o \
	src/ddl.o \
	src/dequeue.o \
	src/drop_guard.o \
	src/event.o \
	src/fromcore.o \
	src/hash.o \
	src/insert.o \
	src/join.o \
	src/lease.o \
	src/lifecycle.o \
	src/lock.o \
	src/logical.o \
	src/option.o \
	src/placement.o \
	src/plan.o \
	src/range.o \
	src/release.o \
	src/reshard.o \
	src/result.o \
	src/route.o \
	src/row.o \
	src/sees_rows.o \
	src/seqcare.o \
	src/sequence.o \
	src/sequence_ddl.o \
	src/shard_fdw.o \
	src/shardset.o \
	src/target.o \
	src/view.o
PGFILEDESC = "shard_fdw - one insert target over many tables"

DATA = $(wildcard sql/$(EXTENSION)--*--*.sql)
DATA_built = sql/$(EXTENSION)--$(EXTVERSION).sql

# These set up what they need by themselves, PostgreSQL included.
DRIVER_GOALS = demo example test bench test-matrix test-assert test-sanitize check-static

ifneq ($(filter $(DRIVER_GOALS),$(MAKECMDGOALS)),)

.PHONY: $(MAKECMDGOALS)
$(filter $(DRIVER_GOALS),$(MAKECMDGOALS)):
	@PG_CONFIG='$(PG_CONFIG)' test/run $@

else

# Without these, make would find nothing to do, and call that a success.
ifeq ($(PG_CONFIG),)
override PG_CONFIG := pg_config
endif
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifeq ($(PGXS),)
$(error cannot run "$(PG_CONFIG)"; install PostgreSQL and its server headers, or give the path of its pg_config as in "make PG_CONFIG=/usr/lib/postgresql/15/bin/pg_config")
endif
ifeq ($(wildcard $(PGXS)),)
$(error $(shell $(PG_CONFIG) --version) of "$(PG_CONFIG)" has no server headers: there is no $(PGXS); install them (postgresql-server-dev-15 or the like), or set PG_CONFIG)
endif
include $(PGXS)
ifneq ($(filter 7.% 8.% 9.% 10 11 12 13 14,$(MAJORVERSION)),)
$(error shard_fdw requires PostgreSQL 15.2 or later; "$(PG_CONFIG)" belongs to $(VERSION))
endif

$(DATA_built): sql/$(EXTENSION).sql
	cp $< $@

$(OBJS): src/shard_fdw.h src/compat.h

endif
