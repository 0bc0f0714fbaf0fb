# shard_fdw - one foreign table takes the inserts, many tables share the rows
#
#   make demo             set up, build, and see it work in a private cluster
#   make example          the same for a worked example of commit order
#   make test             set up, build, and run all tests
#   make bench            the same for the benchmark (WORKS=list: its parts)
#   make bench-contention what sessions wait for that insert at the same time
#   make test-matrix      all tests on each PostgreSQL (MATRIX=trixie: on one)
#   make test-assert      all tests on a server with assertions
#   make test-sanitize    the SQL tests under the sanitizers
#   make check-static     compilers, analyzers, and formatting
#   make, make install    build and install for the PostgreSQL of PG_CONFIG
#   make installcheck     a short test of what is installed, on a running server
#   make dist             the archive for PGXN, of what is committed
#   make html             README.md and docs/ as pages for a browser

# Where this file is, which need not be where it is built.
here := $(dir $(lastword $(MAKEFILE_LIST)))

EXTENSION = shard_fdw
EXTVERSION := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" $(here)shard_fdw.control)

MODULE_big = shard_fdw
OBJS = \
	src/shard_fdw.o \
	src/consume/consumer.o \
	src/consume/dequeue.o \
	src/consume/registry.o \
	src/consume/result.o \
	src/consume/seek.o \
	src/consume/lag.o \
	src/plan/assume.o \
	src/plan/by_key.o \
	src/plan/by_key_exec.o \
	src/plan/choice.o \
	src/plan/core_plan.o \
	src/plan/cursor.o \
	src/plan/explain.o \
	src/plan/gather.o \
	src/plan/join.o \
	src/plan/lookup.o \
	src/plan/node_use.o \
	src/plan/plan.o \
	src/plan/planning.o \
	src/plan/prune.o \
	src/plan/remote_agg.o \
	src/plan/remote_limit.o \
	src/plan/remote_scan.o \
	src/plan/remote_update.o \
	src/plan/times.o \
	src/remote/admin.o \
	src/remote/alter.o \
	src/remote/connect.o \
	src/remote/feed.o \
	src/remote/gone.o \
	src/remote/make_table.o \
	src/remote/retire.o \
	src/remote/session.o \
	src/remote/stream.o \
	src/remote/transfer.o \
	src/shards/admin.o \
	src/shards/advice.o \
	src/shards/changes.o \
	src/shards/clone.o \
	src/shards/column_type.o \
	src/shards/convert.o \
	src/shards/copy.o \
	src/shards/create.o \
	src/shards/create_index.o \
	src/shards/definition.o \
	src/shards/drain.o \
	src/shards/drop_guard.o \
	src/shards/event.o \
	src/shards/lifecycle.o \
	src/shards/maintain.o \
	src/shards/move.o \
	src/shards/outside.o \
	src/shards/range.o \
	src/shards/rebalance.o \
	src/shards/release.o \
	src/shards/reshard.o \
	src/shards/retain.o \
	src/shards/reunite.o \
	src/shards/run.o \
	src/shards/split.o \
	src/shards/sequence_ddl.o \
	src/shards/sequence_reset.o \
	src/shards/succession.o \
	src/shards/table_view.o \
	src/shards/view.o \
	src/shards/watch.o \
	src/shards/worker.o \
	src/table/cache.o \
	src/table/checks.o \
	src/table/command.o \
	src/table/due.o \
	src/table/key.o \
	src/table/lease.o \
	src/table/ledger.o \
	src/table/lock.o \
	src/table/logical.o \
	src/table/map.o \
	src/table/node_snapshot.o \
	src/table/option.o \
	src/table/placement.o \
	src/table/progress.o \
	src/table/sees_rows.o \
	src/table/sequence.o \
	src/write/alarm.o \
	src/write/batch.o \
	src/write/check_row.o \
	src/write/conflict.o \
	src/write/core_exec.o \
	src/write/explain_insert.o \
	src/write/index_run.o \
	src/write/index_sort.o \
	src/write/insert.o \
	src/write/move.o \
	src/write/one_node.o \
	src/write/route.o \
	src/write/remote_error.o \
	src/write/row.o \
	src/write/target.o

# A client program.  PGXS builds programs or libraries, not both, so the rules
# for this one are below.
LOAD = src/load/shard_load
LOAD_OBJS = \
	src/load/connection.o \
	src/load/cut.o \
	src/load/input.o \
	src/load/job.o \
	src/load/key.o \
	src/load/loader.o \
	src/load/options.o \
	src/load/pieces.o \
	src/load/progress.o \
	src/load/reader.o \
	src/load/region.o \
	src/load/rejects.o \
	src/load/shard_load.o \
	src/load/target.o \
	src/load/worker.o

# Its man page is made where there is pandoc, which makes HTML pages, too.
PANDOC := $(shell command -v pandoc 2>/dev/null)
LOAD_MAN = docs/shard_load.1
HTML = build/html

EXTRA_CLEAN = $(LOAD)$(X) $(LOAD_OBJS) $(LOAD_MAN) $(HTML)

REGRESS = smoke
REGRESS_OPTS = --inputdir=$(here)test/installcheck

PGFILEDESC = "shard_fdw - one insert target over many tables"
PG_CPPFLAGS = -I$(srcdir)/src -I$(libpq_srcdir)
SHLIB_LINK_INTERNAL = $(libpq)

DATA = $(patsubst $(here)%,%,$(wildcard $(here)sql/$(EXTENSION)--*--*.sql))
DATA_built = sql/$(EXTENSION)--$(EXTVERSION).sql

# These set up what they need by themselves, PostgreSQL included.
DRIVER_GOALS = demo example test bench bench-contention test-matrix test-assert test-sanitize check-static

ifneq ($(filter $(DRIVER_GOALS),$(MAKECMDGOALS)),)

.PHONY: $(MAKECMDGOALS)
$(filter $(DRIVER_GOALS),$(MAKECMDGOALS)):
	@PG_CONFIG='$(PG_CONFIG)' $(here)test/run $@ $(if $(filter bench,$@),$(WORKS)) \
		$(if $(filter bench-contention,$@),$(CLIENTS))

else ifeq ($(MAKECMDGOALS),dist)

# The sources as they are committed, which needs no PostgreSQL.
DISTVERSION := $(shell sed -n 's/^  "version": "\(.*\)",/\1/p' $(here)META.json)
DIST = $(EXTENSION)-$(DISTVERSION)

.PHONY: dist
dist:
	git -C $(here) archive --format=zip --prefix=$(DIST)/ -o '$(CURDIR)/$(DIST).zip' HEAD

else ifeq ($(MAKECMDGOALS),html)

# No PostgreSQL is needed for these either.
PAGES := $(patsubst $(here)%.md,$(HTML)/%.html,$(wildcard $(here)*.md $(here)docs/*.md))
PAGES := $(patsubst $(HTML)/README.html,$(HTML)/index.html,$(PAGES))
IMAGES := $(patsubst $(here)%,$(HTML)/%,$(wildcard $(here)docs/*.svg))
PAGE_PARTS := $(here)docs/html/page.html $(here)docs/html/links.lua

.PHONY: html
html: $(PAGES) $(IMAGES) $(HTML)/style.css
	@echo 'The first page is $(CURDIR)/$(HTML)/index.html'

define make_page
$(if $(PANDOC),,$(error there is no pandoc, which makes the pages; install it ("apt install pandoc" on Debian)))
@mkdir -p $(dir $@)
$(PANDOC) -s --toc --toc-depth=3 --no-highlight -f gfm -t html5 -V top='$(if $(findstring /docs/,$@),../)' \
	--template=$(here)docs/html/page.html --lua-filter=$(here)docs/html/links.lua -o $@ $<
endef

$(HTML)/index.html: $(here)README.md $(PAGE_PARTS)
	$(make_page)
$(filter-out $(HTML)/index.html,$(PAGES)): $(HTML)/%.html: $(here)%.md $(PAGE_PARTS)
	$(make_page)
$(IMAGES): $(HTML)/%: $(here)%
	@mkdir -p $(dir $@)
	cp $< $@
$(HTML)/style.css: $(here)docs/html/style.css
	@mkdir -p $(dir $@)
	cp $< $@

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

$(OBJS) $(OBJS:.o=.bc): $(wildcard $(here)src/*.h $(here)src/*/*.h)

$(LOAD_OBJS): $(here)src/load/shard_load.h
$(LOAD_OBJS): override CPPFLAGS += -I$(libpq_srcdir)
$(LOAD)$(X): $(LOAD_OBJS)
	$(CC) $(CFLAGS) $(LOAD_OBJS) $(LDFLAGS) $(LDFLAGS_EX) -L$(pkglibdir) -lpgfeutils -lpgcommon -lpgport $(libpq) -lm -o $@

all: $(LOAD)$(X)

.PHONY: install-load uninstall-load
install: install-load
uninstall: uninstall-load

# Each option is a term and its definition, as in other man pages.
$(LOAD_MAN): docs/shard_load.md
	awk 'match($$0, /^- `[^`]*`(, `[^`]*`)*: /) { \
		$$0 = "\n" substr($$0, 3, RLENGTH - 4) "\n:   " substr($$0, RLENGTH + 1) } 1' $< | \
	$(PANDOC) -s -f markdown -t man --shift-heading-level-by=-1 \
		-V section=1 -V header=shard_fdw -V footer='shard_fdw $(EXTVERSION)' -o $@

ifneq ($(PANDOC),)
.PHONY: install-man
all: $(LOAD_MAN)
install-load: install-man
install-man: $(LOAD_MAN)
	$(MKDIR_P) '$(DESTDIR)$(mandir)/man1'
	$(INSTALL_DATA) $< '$(DESTDIR)$(mandir)/man1/shard_load.1'
endif

install-load: $(LOAD)$(X)
	$(MKDIR_P) '$(DESTDIR)$(bindir)'
	$(INSTALL_PROGRAM) $< '$(DESTDIR)$(bindir)/shard_load$(X)'

uninstall-load:
	rm -f '$(DESTDIR)$(bindir)/shard_load$(X)' '$(DESTDIR)$(mandir)/man1/shard_load.1'

# Out of tree, there are no folders yet.
ifneq ($(here),./)
$(shell mkdir -p $(dir $(OBJS) $(LOAD_OBJS) $(LOAD_MAN) $(DATA_built)))
endif

endif
