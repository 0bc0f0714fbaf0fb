/*-------------------------------------------------------------------------
 *
 * shards_private.h
 *	  What the files of this wing use of each other.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SHARD_SHARDS_PRIVATE_H
#define SHARD_SHARDS_PRIVATE_H

#include "shards/shards.h"

/* What a shard has by inheritance only. */
typedef struct ShardInherited
{
	Bitmapset  *columns;		/* numbers of its columns */
	List	   *constraints;	/* names, as String nodes */
} ShardInherited;

/* How far shard_advance_range() has come. */
typedef enum ShardRangeStep
{
	SHARD_RANGE_NONE,			/* the shard has none, or no longer */
	SHARD_RANGE_BUSY,			/* somebody writes it: try again later */
	SHARD_RANGE_AGAIN,			/* commit, and call it again */
	SHARD_RANGE_DONE			/* the range is valid */
} ShardRangeStep;

/*
 * While a pass over tables that are being copied has found more changes than
 * this, make another before they are locked, but not more than so many.
 */
#define SHARD_FEW_CHANGES	500
#define SHARD_MAX_PASSES	6

/* A state of the database to compare with others. */
typedef struct ShardMoment
{
	Snapshot	snapshot;		/* registered, or NULL: before all */
	XLogRecPtr	position;		/* in the WAL, not after it */
} ShardMoment;

/* What is to be done with a row, which is good for as long as this lasts. */
typedef void (*ShardRowFunction) (void *arg, HeapTuple row);

/* What puts a table in the place of another. */
typedef struct ShardSuccession
{
	Oid			predecessor;	/* has the privileges */
	List	   *own;			/* commands for the owner of the table */
	List	   *others;			/* ... and for those of views and functions */
} ShardSuccession;

/* in admin.c */
extern char *shard_command_for(const char *command, Oid shard);
extern char *shard_run_command(const char *command, Oid shard,
							   MemoryContext context, bool *exists);

/* in advice.c */
extern void shard_advise_options(Oid relid, const ShardOptions *options);
extern void shard_advise_trigger(Oid relid, const CreateTrigStmt *stmt);
extern void shard_advise_place(Oid logical, Oid shard);
extern void shard_advise_nested(Oid logical);
extern void shard_advise_remote(Oid logical, Oid shard);
extern void shard_advise_not_copied(Relation source);
extern void shard_advise_template(Oid logical, Oid template);

/* in changes.c */
typedef struct ShardChanges ShardChanges;
extern ShardMoment shard_moment(void);
extern void shard_moment_end(ShardMoment *moment);
extern ShardChanges *shard_changes_begin(Relation rel);
extern void shard_changes_resume(ShardChanges *changes, Relation rel);
extern int64 shard_changes_gone(ShardChanges *changes, const ShardMoment *last,
								const ShardMoment *now, ShardRowFunction function,
								void *arg);
extern int64 shard_changes_new(ShardChanges *changes, const ShardMoment *last,
							   const ShardMoment *now, ShardRowFunction function,
							   void *arg);

/* in clone.c */
extern ShardInherited *shard_note_inherited(Oid relid);
extern void shard_disown(Oid relid, const ShardInherited *only);
extern void shard_set_trigger_state(Oid relid, const char *name, char state);
extern void shard_clone_checks(Relation source, const char *source_name,
							   Oid shard);
extern void shard_clone_statistics(Oid source, Oid shard);
extern void shard_clone_triggers(Relation source, Oid shard);
extern void shard_clone_foreign_keys(Relation source, const char *source_name,
									 Oid shard);
extern char *shard_strict_columns(Relation logical, Relation source);
extern Oid	shard_clone(Relation logical, Oid schema, const char *name,
						Relation source, const char *place, Oid server);
extern List *shard_unfit_checks(Oid shard, List *siblings);

/* in copy.c */
typedef struct ShardOnlineCopy ShardOnlineCopy;
extern ShardOnlineCopy *shard_online_copy_begin(Oid logical, List *old_shards,
												List *new_shards, int modulus,
												List *remainders);
extern int64 shard_online_copy_pass(ShardOnlineCopy *copy);
extern int64 shard_online_copy_end(ShardOnlineCopy *copy);

/* in create.c */
extern char *shard_new_name(Relation logical);
extern Oid	shard_model_shard(Oid logical);
extern Oid	shard_new_schema(Oid logical, const ShardOptions *options,
							 Oid source);
extern void shard_check_max_shards(Relation logical,
								   const ShardOptions *options, int present,
								   int count);
extern void shard_check_count(FunctionCallInfo fcinfo, const char *name,
							  bool is_optional);
extern List *shard_create(Oid logical_relid, int count, Oid template,
						  Oid schema, List *servers, bool with_checks);

/* in lifecycle.c */
extern bool shard_close(Oid shard);
extern List *shard_referenced_tables(Oid relid);
extern List *shard_rotate(Oid logical, int count);
extern void shard_note_generation(Oid logical, bool is_new);
extern void shard_forget_closed(Oid shard);
extern void shard_note_moved(Oid old_shard, Oid new_shard,
							 bool rows_gone);

/* in maintain.c */
extern void shard_maintain_table(Oid logical);
extern void shard_confirm(Oid logical);
extern void shard_forget_maintenance(Oid logical);

/* in move.c */
extern const char *shard_database_of(Oid server, Oid userid);
extern Oid	shard_move(Oid shard, Oid server, bool allow_reads,
					   TimestampTz *locked_at);

/* in outside.c */
extern bool shard_is_no_transaction(const ErrorData *error);
extern bool shard_is_online(const char *sql);
extern ErrorData *shard_run_outside(const char *sql);
extern PGDLLEXPORT void shard_outside_main(Datum main_arg);

/* in range.c */
extern ShardRangeStep shard_advance_range(Oid logical, Oid shard);
extern void shard_drop_range(Oid shard);
extern void shard_check_not_null(Oid logical, Oid shard);
extern void shard_check_time_column(Oid relid);

/* in reshard.c */
extern void shard_check_replaceable(Oid logical, const ShardMember *member);
extern void shard_check_reshardable(Oid relid);
extern void shard_drop_all(List *shards);
extern void shard_try_to_drop(List *shards, List *to_lock);
extern void shard_hand_over_sequences(List *shards, Oid first);
extern void shard_free_ids(Oid relid, List *shards);
extern int64 shard_count_rows(List *shards);

/* in retain.c */
extern ShardTable *shard_check_timed(Oid logical);
extern bool shard_ask_node(Oid logical, Oid shard, TimestampTz older_than,
						   int patience, List **lost, char **trouble);
extern char *shard_retain(Oid logical, Oid shard, TimestampTz older_than,
						  bool keep_tables, int patience, char **trouble);
extern int	shard_retain_patience(void);

/* in reunite.c */
extern Oid	shard_reunite(Oid logical, bool into_partitions,
						  void (*release) (Oid shard, Oid logical));

/* in run.c */
extern void shard_forget_commands(Oid logical);
extern void shard_begin_commands(FunctionCallInfo fcinfo, Oid logical,
								 const char *function, const char *hint,
								 LOCKTAG *tag);

/* in sequence_ddl.c */
extern int64 shard_query_int64(const char *sql, bool *isnull);
extern int64 shard_advance_sequence(Oid sequence, int64 floor);
extern List *shard_id_slot_sequences(Oid logical, AttrNumber attno);
extern void shard_add_sequence(Relation logical, Oid shard, bool is_new,
							   bool is_empty);
extern void shard_check_sequence(Oid relid, PartitionKey key);
extern void shard_check_ids(Oid relid, const AlterTableStmt *stmt);

/* in sequence_reset.c */
extern void shard_reset_shards(Relation logical, ReturnSetInfo *rsinfo);

/* in split.c */
extern void shard_flush_wal(void);

/* in succession.c */
extern void shard_note_succession(Oid relid, ShardSuccession *succession);
extern void shard_succeed(Oid relid, const ShardSuccession *succession);
extern void shard_succeed_others(const ShardSuccession *succession);
extern void shard_hold_privileges(Oid relid);
extern void shard_copy_privileges(Oid from, Oid to, bool only_owner);
extern void shard_move_identities(Oid from, Oid to);
extern List *shard_views_of(Oid relid);
extern List *shard_query_rows(const char *sql, Oid relid, int ncolumns);
extern void shard_run_for_both(const char *query, Oid old_shard, Oid new_shard);
extern void shard_copy_statistics(Oid from, Oid to);
extern void shard_copy_surroundings(Oid old_shard, Oid new_shard);

/* in worker.c */
extern PGDLLEXPORT void shard_worker_main(Datum main_arg);

#endif							/* SHARD_SHARDS_PRIVATE_H */
