package state

// RaiseSQL returns a statement that fails with this error and does nothing else, in whatever state the session is. The texts
// may be of any bytes in the session's client_encoding. It has no parameters and takes PL/pgSQL, which every database has
// unless somebody has dropped it; then it fails with another error.
func RaiseSQL(code, message, hint string) []byte {
	body := append([]byte(nil), "BEGIN RAISE EXCEPTION USING ERRCODE = "...)
	body = appendLiteral(body, code)
	body = append(body, ", MESSAGE = "...)
	body = appendText(body, message)
	body = append(body, ", HINT = "...)
	body = appendText(body, hint)
	body = append(body, "; END"...)
	return append(appendLiteral([]byte("DO LANGUAGE plpgsql "), string(body)), ';')
}
