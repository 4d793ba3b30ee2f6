package auth

import "fmt"

// FatalError is a refusal that the client is told of, in an ErrorResponse of severity FATAL, before its connection is closed.
type FatalError struct {
	// SQLState is the five-character code that drivers act on.
	SQLState string
	// Message, Detail and Hint are the client's to read; Detail and Hint may be "".
	Message, Detail, Hint string
	// Cause is for the log alone; it may say what the client must not know. May be nil.
	Cause error
}

// Error describes the refusal for the log, with its cause.
func (e *FatalError) Error() string {
	s := e.Message + " (SQLSTATE " + e.SQLState + ")"
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *FatalError) Unwrap() error { return e.Cause }

// wrongPassword is the one answer to a wrong password and to an unknown user.
func wrongPassword(user string, cause error) error {
	return &FatalError{
		SQLState: "28P01",
		Message:  fmt.Sprintf(`password authentication failed for user "%s"`, user),
		Cause:    cause,
	}
}

// violation is an answer to a client that breaks the protocol.
func violation(message, detail string, cause error) error {
	return &FatalError{SQLState: "08P01", Message: message, Detail: detail, Cause: cause}
}
