package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Load reads the file and the variables (in the form of os.Environ), which override the file. The file "" is none. The
// error lists every fault, one a line; the Config then holds what could be read.
func Load(file string, environ []string) (Config, Origins, error) {
	c := Default()
	options := c.options()
	r := &reader{file: file, origins: Origins{}, failed: map[string]bool{}}
	if file != "" {
		content, err := os.ReadFile(file) //nolint:gosec // The name is the operator's own.
		if err != nil {
			return c, r.origins, sortedError([]*FaultError{unreadable(file, err)})
		}
		r.readFile(content, options)
	}
	r.readEnviron(environ, options)
	r.validate(&c)
	return c, r.origins, sortedError(r.faults)
}

// unreadable returns the fault of a file that cannot be read.
func unreadable(file string, err error) *FaultError {
	f := &FaultError{File: file, Wrong: "cannot be read", Instead: fmt.Sprintf("check the name and its permissions (%s)", reason(err))}
	if errors.Is(err, fs.ErrNotExist) {
		f.Wrong, f.Instead = "does not exist", "check the name given by --config or "+FileVariable
	}
	return f
}

// reason returns the operating system's word for an error, without the name of the file.
func reason(err error) string {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err.Error()
	}
	return err.Error()
}
