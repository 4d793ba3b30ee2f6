package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"pgsidecar/internal/config"
)

// The exit codes, which scripts and probes rely on.
const (
	exitOK      = 0 // Done, or ended as asked.
	exitFailure = 1 // It was tried and failed.
	exitUsage   = 2 // The command line or the configuration is wrong: trying again will not help.
	exitUnsure  = 3 // Of verify: nothing failed, but something could not be checked.
)

// invocation is what the program gets from the operating system. Tests give it their own.
type invocation struct {
	args, environ  []string
	stdout, stderr io.Writer
	signals        <-chan os.Signal
	open           opener
}

// command is one subcommand. Its run gets the invocation with the arguments that are left after the flags: none.
type command struct {
	name, summary, usage string
	// flags declares the command's own flags and returns what to run once they are set.
	flags func(*flag.FlagSet) func(context.Context, invocation) error
}

// commands returns all subcommands in the order of the help.
func commands() []command {
	return []command{runCommand(), checkCommand(), statusCommand(), healthCommand(), drainCommand(), switchoverCommand(), verifyCommand(), versionCommand()}
}

// usageError is a mistake on the command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// configError is a mistake in the configuration.
type configError struct{ err error }

func (e *configError) Error() string {
	return "the configuration cannot be used:\n" + e.err.Error()
}

func (e *configError) Unwrap() error { return e.err }

// run does what the arguments say and returns the exit code.
func run(ctx context.Context, in invocation) int {
	err := dispatch(ctx, in)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(in.stderr, "pgsidecar: "+err.Error())
	return codeOf(err)
}

// codeOf returns the exit code for an error.
func codeOf(err error) int {
	if ended, ok := errors.AsType[*exitError](err); ok {
		return ended.code
	}
	var usage *usageError
	var faulty *configError
	if errors.As(err, &usage) || errors.As(err, &faulty) {
		return exitUsage
	}
	if _, unsure := errors.AsType[*unsureError](err); unsure {
		return exitUnsure
	}
	return exitFailure
}

// dispatch finds the subcommand and runs it. Without one, flags are those of run.
func dispatch(ctx context.Context, in invocation) error {
	name := "run"
	if len(in.args) > 0 {
		switch first := in.args[0]; {
		case !strings.HasPrefix(first, "-"):
			name, in.args = first, in.args[1:]
		case isHelp(first):
			name, in.args = "help", nil
		case first == "--version" || first == "-version":
			name, in.args = "version", nil
		}
	}
	if name == "help" {
		return help(in)
	}
	c, err := find(name)
	if err != nil {
		return err
	}
	return c.execute(ctx, in)
}

func isHelp(arg string) bool { return slices.Contains([]string{"-h", "-help", "--help"}, arg) }

// find returns the subcommand called name.
func find(name string) (command, error) {
	all := commands()
	i := slices.IndexFunc(all, func(c command) bool { return c.name == name })
	if i < 0 {
		names := make([]string, len(all))
		for i, c := range all {
			names[i] = c.name
		}
		return command{}, &usageError{fmt.Sprintf("there is no command %q: write one of %s", name, strings.Join(names, ", "))}
	}
	return all[i], nil
}

// execute sets the flags from the arguments and runs the command.
func (c command) execute(ctx context.Context, in invocation) error {
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // Errors and help are worded here.
	do := c.flags(flags)
	err := flags.Parse(in.args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		c.help(in.stdout, flags)
		return nil
	case err != nil:
		return &usageError{fmt.Sprintf("%v; see pgsidecar %s --help", err, c.name)}
	case flags.NArg() > 0:
		return &usageError{fmt.Sprintf("%s takes no argument %q; see pgsidecar %s --help", c.name, flags.Arg(0), c.name)}
	}
	in.args = nil
	return do(ctx, in)
}

// help writes the help of one command.
func (c command) help(w io.Writer, flags *flag.FlagSet) {
	fmt.Fprintf(w, "Usage: pgsidecar %s [flags]\n\n%s\n", c.name, strings.TrimSpace(c.usage))
	var rows [][]string
	flags.VisitAll(func(f *flag.Flag) {
		value, text := flag.UnquoteUsage(f)
		rows = append(rows, []string{"  --" + strings.TrimSpace(f.Name+" "+value), text})
	})
	if len(rows) > 0 {
		fmt.Fprint(w, "\nFlags:\n")
		printTable(w, rows)
	}
}

// help writes the overview, or the help of the command that is named.
func help(in invocation) error {
	if len(in.args) > 0 {
		c, err := find(in.args[0])
		if err != nil {
			return err
		}
		flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
		c.flags(flags)
		c.help(in.stdout, flags)
		return nil
	}
	fmt.Fprint(in.stdout, "pgsidecar pools the PostgreSQL connections of the application beside it.\n\n"+
		"Usage: pgsidecar [command] [flags]\n\nCommands:\n")
	var rows [][]string
	for _, c := range commands() {
		rows = append(rows, []string{"  " + c.name, c.summary})
	}
	printTable(in.stdout, rows)
	fmt.Fprint(in.stdout, `
Examples:
  DATABASE_URL=postgres://app@db:5432/app pgsidecar
      Listens on 127.0.0.1:6432 for clients and on 127.0.0.1:6433 for HTTP.
  pgsidecar run --config /etc/pgsidecar.yaml
  pgsidecar run --help

Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong.
`)
	return nil
}

// configFlag declares --config and returns the name of the file once the flags are set; "" is none.
func configFlag(flags *flag.FlagSet) func(invocation) string {
	file := flags.String("config", "", "the configuration `FILE`, YAML; else the one in "+config.FileVariable+", if any")
	return func(in invocation) string {
		if *file != "" {
			return *file
		}
		return in.getenv(config.FileVariable)
	}
}

// getenv returns the value of a variable, or "".
func (in invocation) getenv(name string) string {
	value := ""
	for _, entry := range in.environ {
		if n, v, _ := strings.Cut(entry, "="); n == name {
			value = v // The last one counts, as for the configuration.
		}
	}
	return value
}
