package state

// clause is what the words behind a verb say.
type clause struct {
	effect  Effect
	setting string // the setting's canonical name where the grammar implies it: SET TIME ZONE
	name    []byte // a name as it is written: setting, channel, cursor, prepared statement, object, savepoint, library
	value   []byte // the rest of the statement as it is written: a setting's value, a prepared statement's text
}

// clauseOf reads the words of a statement that begins with a verb. For most verbs there is nothing to read.
func clauseOf(verb Verb, statement []byte, escapes bool) clause {
	switch verb {
	case VerbBegin, VerbStart, VerbCommit, VerbEnd, VerbRollback, VerbAbort, VerbSavepoint, VerbRelease, VerbSet,
		VerbReset, VerbDiscard, VerbPrepare, VerbExecute, VerbDeallocate, VerbDeclare, VerbClose, VerbListen, VerbUnlisten,
		VerbNotify, VerbCopy, VerbLoad, VerbCreate, VerbDrop:
	default:
		return clause{}
	}
	r := newReader(statement, escapes)
	r.advance() // the verb
	switch verb {
	case VerbBegin, VerbStart, VerbCommit, VerbEnd, VerbRollback, VerbAbort, VerbSavepoint, VerbRelease:
		return r.transaction(verb)
	case VerbSet:
		return r.set()
	case VerbReset:
		return r.reset()
	case VerbPrepare:
		return r.prepare()
	case VerbDeclare:
		return r.declare()
	case VerbCopy:
		return r.copy()
	case VerbCreate:
		return r.create()
	default:
		return r.named(verb)
	}
}

// named reads the statements that consist of a verb and a name.
func (r *reader) named(verb Verb) clause {
	switch verb {
	case VerbDiscard:
		return clause{effect: r.discard()}
	case VerbExecute, VerbListen, VerbNotify:
		return clause{name: r.name()} // the verb says the effect
	case VerbLoad, VerbDrop:
		return clause{value: r.rest()}
	case VerbUnlisten:
		if r.tok == '*' {
			return clause{effect: UnlistenAll}
		}
		return clause{effect: Unlisten, name: r.name()}
	case VerbClose:
		if r.is("all") {
			return clause{effect: CloseAll}
		}
		return clause{effect: CloseCursor, name: r.name()}
	case VerbDeallocate:
		r.acceptNoise("prepare")
		if r.is("all") {
			return clause{effect: DeallocateAll}
		}
		return clause{effect: Deallocate, name: r.name()}
	}
	return clause{effect: Unknown}
}

func (r *reader) discard() Effect {
	switch {
	case r.is("all"):
		return DiscardAll
	case r.is("plans"):
		return DiscardPlans
	case r.is("sequences"):
		return DiscardSequences
	case r.is("temp"), r.is("temporary"):
		return DiscardTemp
	}
	return Unknown
}

func (r *reader) prepare() clause {
	transaction := r.is("transaction")
	name := r.name()
	if transaction && r.tok == text {
		return clause{effect: PrepareTransaction, value: r.rest()}
	}
	if r.find("as", "as") != "" {
		r.advance()
	}
	return clause{effect: Prepare, name: name, value: r.rest()}
}

func (r *reader) declare() clause {
	c := clause{name: r.name()}
	for !r.over() && !r.is("for") {
		if r.accept("with") && r.is("hold") {
			c.effect = HoldCursor
		}
		r.advance()
	}
	return c
}

func (r *reader) copy() clause {
	if r.find("from", "to") == "from" {
		return clause{effect: Write}
	}
	return clause{}
}

// create finds out whether what is created is temporary by its grammar; a name in pg_temp is noticed elsewhere.
func (r *reader) create() clause {
	if r.accept("or") {
		r.accept("replace")
	}
	_ = r.accept("global") || r.accept("local")
	if !r.accept("temp") && !r.accept("temporary") {
		var c clause
		if r.is("extension") {
			c.effect = Function // its script runs
		}
		if r.find("as", "begin") == "as" {
			c.effect |= r.executes()
		}
		return c
	}
	r.accept("recursive")
	r.advance() // TABLE, VIEW, SEQUENCE
	if r.accept("if") {
		r.accept("not")
		r.accept("exists")
	}
	c := clause{effect: Temp, name: r.name()}
	for r.find("on", "as") == "on" {
		r.advance()
		if r.accept("commit") && r.is("drop") {
			c.effect = TempLocal
		}
	}
	if r.is("as") {
		c.effect |= r.executes()
	}
	return c
}

// executes tells, at AS, whether what is created gets its rows from a prepared statement.
func (r *reader) executes() Effect {
	r.advance()
	if r.is("execute") {
		return Execute
	}
	return 0
}
