// Command brownout makes a replicated store slow on purpose, proves what held,
// and names what slowed it down.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"

	"brownout/internal/run"
)

// version is set by the Makefile.
var version = "dev"

// Exit codes; the table of README.md. Those of verdicts are in run.Verdict.
const (
	exitUsage       = 2
	exitUnsupported = 5
	exitInterrupted = 130
)

func main() {
	if code, ok := helper(os.Args); ok {
		os.Exit(code)
	}
	os.Exit(start(os.Args[1:]))
}

func start(args []string) int {
	ctx, stop := interruptible()
	defer stop()
	root := rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil && !errors.Is(stdout.err, syscall.EPIPE) {
		err = stdout.err
	}
	return exitCode(err)
}

// interruptible returns a context that the first SIGINT, SIGTERM or SIGHUP (a
// terminal that closes) cancels: everything heals, writes and ends. The second
// aborts at once; the kernel and the reaper then take down what is left.
func interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	ch := make(chan os.Signal, 2)
	signal.Notify(ch, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // by nohup
		signal.Notify(ch, syscall.SIGHUP)
	}
	go func() {
		sig, ok := <-ch
		if !ok {
			return
		}
		doing := "healing and writing what was recorded"
		if keeping.Load() {
			doing = "taking the nodes down"
		}
		fmt.Fprintf(os.Stderr, "\nbrownout: %v: %s; once more to abort\n", sig, doing)
		cancel(&interrupted{sig})
		for sig := range ch {
			if sig == syscall.SIGHUP {
				continue // shell and kernel may each send one, and nobody sits there to mean it
			}
			fmt.Fprintln(os.Stderr, "brownout: aborted")
			os.Exit(exitInterrupted)
		}
	}()
	return ctx, func() { signal.Stop(ch); close(ch); cancel(nil) }
}

// keeping is set while nothing is left to do but to hold the nodes of a run.
var keeping atomic.Bool

// interrupted is the cause of a context that a signal cancelled.
type interrupted struct{ sig os.Signal }

func (i *interrupted) Error() string { return i.sig.String() }

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "brownout",
		Short:         "Make a replicated store slow on purpose, prove what held, name what slowed it down",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version,
	}
	root.AddCommand(
		doctorCommand(), demoCommand(), runCommand(), listCommand(),
		upCommand(), downCommand(), enterCommand(), probeCommand(), pcapCommand(), faultCommand(), cleanCommand(), calibrateCommand(),
		checkCommand(), traceCommand(), showCommand(), lsCommand(), schemaCommand(), versionCommand(),
	)
	root.InitDefaultCompletionCmd()
	for _, group := range root.Commands() { // else an unknown subcommand is a success with help
		if group.HasSubCommands() && group.RunE == nil {
			group.Args, group.RunE = usageArgs(cobra.NoArgs), func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	return root
}

// usageError is a mistake in the command line or in a file the user wrote.
type usageError struct{ err error }

func (u *usageError) Error() string { return u.err.Error() }
func (u *usageError) Unwrap() error { return u.err }

// judged carries a verdict that is not a pass to the exit code.
type judged struct{ verdict run.Verdict }

func (j *judged) Error() string { return string(j.verdict) }

// silent carries an exit code whose reason was printed already.
type silent struct{ code int }

func (s *silent) Error() string { return fmt.Sprintf("exit %d", s.code) }

// exitCode maps an error to the documented exit code, and is the only place
// that prints one.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if s, ok := errors.AsType[*silent](err); ok {
		return s.code
	}
	if j, ok := errors.AsType[*judged](err); ok {
		return j.verdict.ExitCode()
	}
	if u, ok := errors.AsType[*unjudged](err); ok {
		fmt.Fprintln(os.Stderr, "brownout:", u)
		return run.Inconclusive.ExitCode()
	}
	if i, ok := errors.AsType[*interrupted](err); ok {
		fmt.Fprintln(os.Stderr, "brownout: interrupted:", i)
		return exitInterrupted
	}
	fmt.Fprintln(os.Stderr, "brownout:", err)
	if errors.Is(err, errors.ErrUnsupported) {
		return exitUnsupported
	}
	return exitUsage
}

// worstCode merges the exit codes of several runs: 3 > 1 > 4 > 5 > 0.
func worstCode(codes ...int) int {
	for _, c := range []int{exitInterrupted, exitUsage, 3, 1, 4, exitUnsupported} {
		for _, got := range codes {
			if got == c {
				return c
			}
		}
	}
	return 0
}
