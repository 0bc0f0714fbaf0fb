/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The background worker that does what is due about a logical table.
 *
 * Sessions that insert start it (alarm.c); nobody waits for it.  It connects
 * to the database as the owner of the table, does what procedure maintain()
 * does, and ends.  What it has done is in the server's log.
 *
 *-------------------------------------------------------------------------
 */
#include "shards/shards_private.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"

/*
 * Settings that the database or the role may have, and that would keep it from
 * its work or have it do other things than are meant.
 */
static const char *const settings[][2] = {
	{"application_name", "shard_fdw maintenance"},
	{"search_path", "pg_catalog, pg_temp"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
	{"statement_timeout", "0"},
	{"lock_timeout", "5s"},
	{"idle_in_transaction_session_timeout", "0"},
	{"row_security", "off"}
};

/*
 * shard_worker_main
 *		The worker.  Its task is in bgw_extra.
 */
void
shard_worker_main(Datum main_arg)
{
	ShardWorkerTask task;

	memcpy(&task, MyBgworkerEntry->bgw_extra, sizeof(task));
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(task.database, task.role, 0);
	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_USERSET,
						PGC_S_SESSION);

	SetCurrentStatementStartTimestamp();
	pgstat_report_activity(STATE_RUNNING, "maintaining a foreign table of shard_fdw");
	/* What lasts from one transaction to the next hangs on this. */
	PortalContext = AllocSetContextCreate(TopMemoryContext,
										  "shard_fdw maintenance",
										  ALLOCSET_DEFAULT_SIZES);
	StartTransactionCommand();
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	shard_maintain_table(task.logical);
	SPI_finish();
	CommitTransactionCommand();
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
}
