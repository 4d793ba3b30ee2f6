package process

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestParseStat_programNameWithParentheses_countsFromTheLastOne(t *testing.T) {
	stat := "42 (a) S 9 (b) S 1 42 42 0 -1 4194560 100 0 0 0 250 125 7 8 20 0 3 0 1000\n"
	usage, err := parseStat([]byte(stat))
	require.NoError(t, err)
	require.Equal(t, Usage{User: 2500 * time.Millisecond, System: 1250 * time.Millisecond}, usage)
}

func TestParseStat_truncated_isAnError(t *testing.T) {
	for _, stat := range []string{"", "42 (a) S 1 2", "no parenthesis"} {
		_, err := parseStat([]byte(stat))
		require.Error(t, err, stat)
	}
}

func TestParseField_similarKeys_takesTheWholeName(t *testing.T) {
	rollup := []byte("00400000-7fff ---p 00000000 00:00 0 [rollup]\nPss_Anon: 7 kB\nPss:            1234 kB\n")
	n, err := parseField(rollup, "Pss")
	require.NoError(t, err)
	require.EqualValues(t, 1234, n)

	_, err = parseField(rollup, "Rss")
	require.Error(t, err)
}

func TestReadUsage_busyProcess_countsItsTime(t *testing.T) {
	before, err := ReadUsage(os.Getpid())
	require.NoError(t, err)
	after := before
	for start := time.Now(); after.CPU() == before.CPU() && time.Since(start) < time.Minute; { // a busy machine gives little
		for range 100_000 {
			_ = unix.Getppid()
		}
		after, err = ReadUsage(os.Getpid())
		require.NoError(t, err)
	}
	require.Greater(t, after.CPU(), before.CPU())
	require.GreaterOrEqual(t, after.Switches, before.Switches)
	require.NotZero(t, after.Switches)
}

func TestReadMemory_touchedPages_areCounted(t *testing.T) {
	const size = 32 << 20
	before, err := ReadMemory(os.Getpid())
	require.NoError(t, err)
	pages, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	require.NoError(t, err)
	defer func() { require.NoError(t, unix.Munmap(pages)) }()
	for i := 0; i < size; i += os.Getpagesize() {
		pages[i] = 1
	}
	after, err := ReadMemory(os.Getpid())
	require.NoError(t, err)
	require.Greater(t, after, before+size/2)
}

func TestCountSyscalls_ownCalls_areCounted(t *testing.T) {
	counter, err := CountSyscalls(os.Getpid())
	if err != nil {
		t.Skipf("the kernel does not let this user count system calls: %v", err)
	}
	defer counter.Close()
	before, err := counter.Count()
	require.NoError(t, err)
	const calls = 1000
	for range calls {
		_ = unix.Getppid()
	}
	after, err := counter.Count()
	require.NoError(t, err)
	require.GreaterOrEqual(t, after-before, uint64(calls))
	require.Less(t, after-before, uint64(10*calls))
}

func TestProcess_endsByItself_failureShowsItsLog(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	p, err := Start(t.Context(), Program{
		Path: "/bin/sh", Args: []string{"-c", `echo "$GREETING"; exit 3`}, Env: []string{"GREETING=cannot bind"}, Log: log,
	})
	require.NoError(t, err)
	<-p.Exited()
	require.ErrorContains(t, p.Failure(), "cannot bind")
	require.ErrorContains(t, p.Failure(), "exit status 3")
}

func TestProcess_environment_keepsWhatIsNotPostgreSQLs(t *testing.T) {
	t.Setenv("PGOPTIONS", "-c jit=on")
	t.Setenv("GREETING", "hello")
	log := filepath.Join(t.TempDir(), "log")
	p, err := Start(t.Context(), Program{Path: "/bin/sh", Args: []string{"-c", `echo "$PGOPTIONS|$GREETING|$PGSIDECAR_LOOPS"`}, Env: []string{"PGSIDECAR_LOOPS=2"}, Log: log})
	require.NoError(t, err)
	require.NoError(t, p.Wait(t.Context()))
	output, err := os.ReadFile(log)
	require.NoError(t, err)
	require.Equal(t, "|hello|2\n", string(output))
}

func TestProcess_stop_endsIt(t *testing.T) {
	p, err := Start(t.Context(), Program{Path: "/bin/sleep", Args: []string{"60"}, Log: filepath.Join(t.TempDir(), "log")})
	require.NoError(t, err)
	p.Stop()
	require.ErrorIs(t, unix.Kill(p.PID(), 0), unix.ESRCH)
}

func TestProcess_otherAccount_runsAsIt(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may run programs as someone else")
	}
	log := filepath.Join(t.TempDir(), "log")
	p, err := Start(t.Context(), Program{Path: "/usr/bin/id", Args: []string{"-un"}, Log: log, Account: "nobody"})
	require.NoError(t, err)
	require.NoError(t, p.Wait(t.Context()))
	output, err := os.ReadFile(log)
	require.NoError(t, err)
	require.Equal(t, "nobody\n", string(output))
}

func TestProcess_contextEnds_waitKillsIt(t *testing.T) {
	p, err := Start(t.Context(), Program{Path: "/bin/sleep", Args: []string{"60"}, Log: filepath.Join(t.TempDir(), "log")})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, p.Wait(ctx), context.Canceled)
	require.ErrorIs(t, unix.Kill(p.PID(), 0), unix.ESRCH)
}
