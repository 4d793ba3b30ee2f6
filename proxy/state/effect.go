package state

// Effect is a set of things that a text may do to its session. It is what the text asks for: a statement that fails, or
// whose transaction is rolled back, has done nothing.
type Effect uint64

// Settings. A setting made without LOCAL outlives its transaction.
const (
	// Set changes settings of the session: SET, set_config(..., false), SET ROLE, SET SESSION CHARACTERISTICS, UPDATE pg_settings.
	Set Effect = 1 << iota
	// SetLocal changes settings until the transaction ends: SET LOCAL, SET TRANSACTION, SET CONSTRAINTS, set_config(..., true).
	SetLocal
	// Reset puts a setting back to what the connection started with: RESET name, SET name TO DEFAULT; with SetLocal, until the
	// transaction ends.
	Reset
	// ResetUser does so for the role or the session user: RESET ROLE, SET SESSION AUTHORIZATION DEFAULT.
	ResetUser
	// ResetAll is RESET ALL, which leaves role and session user alone.
	ResetAll

	// Temp makes a temporary object: CREATE TEMP, SELECT INTO TEMP, a name in pg_temp. Where search_path begins with
	// pg_temp every CREATE (DDL) does, which only who knows the settings can tell.
	Temp
	// TempLocal makes a temporary table that is dropped with the transaction: ON COMMIT DROP.
	TempLocal
	// Drop removes objects, temporary ones perhaps.
	Drop

	// Listen is LISTEN.
	Listen
	// Unlisten is UNLISTEN of one channel.
	Unlisten
	// UnlistenAll is UNLISTEN *.
	UnlistenAll
	// Notify is NOTIFY or pg_notify().
	Notify

	// AdvisoryLock takes an advisory lock of the session. Those of a transaction end with it and are no effect.
	AdvisoryLock
	// AdvisoryUnlock gives one such lock back.
	AdvisoryUnlock
	// AdvisoryUnlockAll gives all of them back.
	AdvisoryUnlockAll

	// HoldCursor is DECLARE ... WITH HOLD. Other cursors end with the transaction and are no effect.
	HoldCursor
	// CloseCursor is CLOSE of one cursor.
	CloseCursor
	// CloseAll is CLOSE ALL.
	CloseAll

	// Prepare is the SQL statement PREPARE. What the prepared statement does when it is executed is not among the effects.
	Prepare
	// Execute runs a statement prepared by SQL: its effects are those of a text that is not here.
	Execute
	// Deallocate is DEALLOCATE of one statement.
	Deallocate
	// DeallocateAll is DEALLOCATE ALL.
	DeallocateAll

	// DiscardAll is DISCARD ALL, which ends everything but Seed, Load and Opaque.
	DiscardAll
	// DiscardPlans is DISCARD PLANS.
	DiscardPlans
	// DiscardTemp is DISCARD TEMP.
	DiscardTemp
	// DiscardSequences is DISCARD SEQUENCES.
	DiscardSequences

	// Sequence is nextval() or setval(): the session remembers the value, whether or not anybody asks for it.
	Sequence
	// SequenceRead is currval() or lastval(), which answer from what the session remembers.
	SequenceRead
	// Seed is setseed() or SET seed, on which later random() calls depend. Nothing shows it and nothing ends it.
	Seed
	// Load is LOAD. Nothing ends it.
	Load
	// Opaque is a built-in or well-known function that leaves something in the session that no query shows and that DISCARD ALL does not
	// end: a base backup under way, a replication origin, a dblink connection.
	Opaque

	// Begin is BEGIN or START TRANSACTION.
	Begin
	// ReadOnlyBegin is such a statement with READ ONLY; it comes with Begin.
	ReadOnlyBegin
	// Commit is COMMIT or END; with AND CHAIN it comes with Begin.
	Commit
	// Rollback is ROLLBACK or ABORT of the whole transaction; with AND CHAIN it comes with Begin.
	Rollback
	// Savepoint is SAVEPOINT.
	Savepoint
	// ReleaseSavepoint is RELEASE.
	ReleaseSavepoint
	// RollbackTo is ROLLBACK TO.
	RollbackTo
	// PrepareTransaction is PREPARE TRANSACTION: the transaction leaves the session.
	PrepareTransaction

	// Copy is COPY in either direction.
	Copy
	// DDL changes the schema, or is a maintenance command.
	DDL
	// Write changes rows or locks them; a read-only transaction and a standby refuse it.
	Write
	// Call is CALL.
	Call
	// Do is DO.
	Do
	// Function calls something that is not known to be harmless.
	Function
	// Unknown is a text that could not be understood.
	Unknown
	// Unseen is no effect of a text: it is used where what the text does not show is not known either (see Hidden).
	Unseen
	// Local calls a function that acts on the server it runs on and leaves nothing in the session. A standby would do it, to itself.
	Local
)

// Has tells whether any of the given effects is in the set.
func (e Effect) Has(some Effect) bool { return e&some != 0 }

// Pins tells whether a text with these effects leaves something on the server that belongs to the client, if it succeeds,
// and names that for a person to read. Reason gives a longer name.
//
// Sequence does not pin: every INSERT into a table with a serial column does the same without showing it. SequenceRead
// pins instead, since a client that asks once will ask again; the first answer is right only if the sequence was used in
// the same transaction.
func Pins(e Effect) (reason string, ok bool) {
	switch {
	case e.Has(Set):
		return "SET", true
	case e.Has(Reset):
		return "RESET", true
	case e.Has(Temp):
		return "temporary object", true
	case e.Has(Listen):
		return "LISTEN", true
	case e.Has(AdvisoryLock):
		return "advisory lock", true
	case e.Has(HoldCursor):
		return "cursor WITH HOLD", true
	case e.Has(Prepare):
		return "PREPARE", true
	case e.Has(SequenceRead):
		return "currval() or lastval()", true
	case e.Has(Seed):
		return "setseed()", true
	case e.Has(Load):
		return "LOAD", true
	case e.Has(Opaque):
		return "function with lasting effects", true
	}
	return "", false
}

// Suspect are the effects of a text that may do to the session what the text does not show.
const Suspect = Execute | Call | Do | Function | Unknown

// Suspicious tells whether a text with these effects may have done to the session what the text does not show, so that
// the server has to be asked after the transaction.
func Suspicious(e Effect) bool { return e.Has(Suspect) }
