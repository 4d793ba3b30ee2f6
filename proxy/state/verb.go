package state

// Verb is the first keyword of a statement, without EXPLAIN before it. Its string is the keyword in capitals.
type Verb uint8

// The verbs of PostgreSQL. VerbNone is a text without a statement, VerbUnknown one that begins with something else.
const (
	VerbNone Verb = iota
	VerbUnknown
	VerbAbort
	VerbAlter
	VerbAnalyze
	VerbBegin
	VerbCall
	VerbCheckpoint
	VerbClose
	VerbCluster
	VerbComment
	VerbCommit
	VerbCopy
	VerbCreate
	VerbDeallocate
	VerbDeclare
	VerbDelete
	VerbDiscard
	VerbDo
	VerbDrop
	VerbEnd
	VerbExecute
	VerbExplain
	VerbFetch
	VerbGrant
	VerbImport
	VerbInsert
	VerbListen
	VerbLoad
	VerbLock
	VerbMerge
	VerbMove
	VerbNotify
	VerbPrepare
	VerbReassign
	VerbRefresh
	VerbReindex
	VerbRelease
	VerbReset
	VerbRevoke
	VerbRollback
	VerbSavepoint
	VerbSecurity
	VerbSelect
	VerbSet
	VerbShow
	VerbStart
	VerbTable
	VerbTruncate
	VerbUnlisten
	VerbUpdate
	VerbVacuum
	VerbValues
	VerbWith
)

// verbOf finds the verb that a folded word is, and what each statement does that begins with it. Where that depends on
// the words that follow, clauseOf says the rest.
func verbOf(folded []byte) (Verb, Effect) {
	switch string(folded) {
	case "select":
		return VerbSelect, 0
	case "insert":
		return VerbInsert, Write
	case "update":
		return VerbUpdate, Write
	case "delete":
		return VerbDelete, Write
	case "merge":
		return VerbMerge, Write
	case "with":
		return VerbWith, 0
	case "values":
		return VerbValues, 0
	case "table":
		return VerbTable, 0
	case "begin":
		return VerbBegin, Begin
	case "start":
		return VerbStart, Begin
	case "commit":
		return VerbCommit, 0
	case "end":
		return VerbEnd, 0
	case "rollback":
		return VerbRollback, 0
	case "abort":
		return VerbAbort, 0
	case "savepoint":
		return VerbSavepoint, Savepoint
	case "release":
		return VerbRelease, ReleaseSavepoint
	case "set":
		return VerbSet, 0
	case "reset":
		return VerbReset, 0
	case "show":
		return VerbShow, 0
	case "discard":
		return VerbDiscard, 0
	case "prepare":
		return VerbPrepare, 0
	case "execute":
		return VerbExecute, Execute
	case "deallocate":
		return VerbDeallocate, 0
	case "declare":
		return VerbDeclare, 0
	case "fetch":
		return VerbFetch, 0
	case "move":
		return VerbMove, 0
	case "close":
		return VerbClose, 0
	case "listen":
		return VerbListen, Listen
	case "unlisten":
		return VerbUnlisten, 0
	case "notify":
		return VerbNotify, Notify
	case "copy":
		return VerbCopy, Copy
	case "lock":
		return VerbLock, Write
	case "truncate":
		return VerbTruncate, Write
	case "call":
		return VerbCall, Call
	case "do":
		return VerbDo, Do
	case "load":
		return VerbLoad, Load
	case "explain":
		return VerbExplain, 0
	default:
		return maintenanceVerb(folded)
	}
}

// maintenanceVerb is verbOf for what an application does rarely.
func maintenanceVerb(folded []byte) (Verb, Effect) {
	switch string(folded) {
	case "create":
		return VerbCreate, DDL
	case "alter":
		return VerbAlter, DDL
	case "drop":
		return VerbDrop, DDL | Drop
	case "analyze", "analyse":
		return VerbAnalyze, DDL
	case "checkpoint":
		return VerbCheckpoint, DDL
	case "cluster":
		return VerbCluster, DDL
	case "comment":
		return VerbComment, DDL
	case "grant":
		return VerbGrant, DDL
	case "import":
		return VerbImport, DDL
	case "reassign":
		return VerbReassign, DDL
	case "refresh":
		return VerbRefresh, DDL
	case "reindex":
		return VerbReindex, DDL
	case "revoke":
		return VerbRevoke, DDL
	case "security":
		return VerbSecurity, DDL
	case "vacuum":
		return VerbVacuum, DDL
	}
	return VerbUnknown, Unknown
}

// String is the keyword as CommandComplete tags spell it; of a text without a known verb it is empty.
func (v Verb) String() string {
	names := [...]string{
		VerbAbort: "ABORT", VerbAlter: "ALTER", VerbAnalyze: "ANALYZE", VerbBegin: "BEGIN", VerbCall: "CALL",
		VerbCheckpoint: "CHECKPOINT", VerbClose: "CLOSE", VerbCluster: "CLUSTER", VerbComment: "COMMENT", VerbCommit: "COMMIT",
		VerbCopy: "COPY", VerbCreate: "CREATE", VerbDeallocate: "DEALLOCATE", VerbDeclare: "DECLARE", VerbDelete: "DELETE",
		VerbDiscard: "DISCARD", VerbDo: "DO", VerbDrop: "DROP", VerbEnd: "END", VerbExecute: "EXECUTE", VerbExplain: "EXPLAIN",
		VerbFetch: "FETCH", VerbGrant: "GRANT", VerbImport: "IMPORT", VerbInsert: "INSERT", VerbListen: "LISTEN", VerbLoad: "LOAD",
		VerbLock: "LOCK", VerbMerge: "MERGE", VerbMove: "MOVE", VerbNotify: "NOTIFY", VerbPrepare: "PREPARE",
		VerbReassign: "REASSIGN", VerbRefresh: "REFRESH", VerbReindex: "REINDEX", VerbRelease: "RELEASE", VerbReset: "RESET",
		VerbRevoke: "REVOKE", VerbRollback: "ROLLBACK", VerbSavepoint: "SAVEPOINT", VerbSecurity: "SECURITY",
		VerbSelect: "SELECT", VerbSet: "SET", VerbShow: "SHOW", VerbStart: "START", VerbTable: "TABLE", VerbTruncate: "TRUNCATE",
		VerbUnlisten: "UNLISTEN", VerbUpdate: "UPDATE", VerbVacuum: "VACUUM", VerbValues: "VALUES", VerbWith: "WITH",
	}
	if int(v) < len(names) {
		return names[v]
	}
	return ""
}
