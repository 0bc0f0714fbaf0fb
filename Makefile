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
	src/clone.o \
	src/conflict.o \
	src/consumer.o \
	src/cursor.o \
	src/ddl.o \
	src/dequeue.o \
	src/event.o \
	src/fromcore.o \
	src/hash.o \
	src/insert.o \
	src/join.o \
	src/lifecycle.o \
	src/lock.o \
	src/option.o \
	src/plan.o \
	src/reshard.o \
	src/route.o \
	src/seqcare.o \
	src/sequence.o \
	src/sequence_ddl.o \
	src/shard_fdw.o \
	src/shardset.o
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

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(DATA_built): sql/$(EXTENSION).sql
	cp $< $@

$(OBJS): src/shard_fdw.h src/compat.h

endif
