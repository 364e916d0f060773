package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"brownout/internal/foreign"
	"brownout/internal/history"
	"brownout/internal/judge"
	"brownout/internal/report"
	"brownout/internal/run"
)

type checkOptions struct {
	output        string
	budget        judge.Options
	format, model string
	init          string
	explain       string          // directory for pictures
	history       foreign.Options // of the three above
}

func checkCommand() *cobra.Command {
	var opt checkOptions
	cmd := &cobra.Command{
		Use:   "check RUN|HISTORY...",
		Short: "Judge recorded runs again from their files, or histories of other tools, without root",
		Long: `Judge recorded runs again from their files, or histories of other tools, without root.

RUN is "latest", "latest~1", an id, a prefix of one, or a path. A file is read
as a history and only checked for consistency; "-" is the standard input. Of a
run that was killed, what had been recorded is judged. Nothing is written into
the run's directory.

` + foreign.About + `

Exit codes: 0 all are linearizable, 3 one is not, 4 one could not be decided or
shows nothing, 2 one is no history. The worst of several counts: 2, 3, 4, 0.`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if opt.history.Format, err = foreign.ParseFormat(opt.format); err != nil {
				return &usageError{fmt.Errorf("--%w", err)}
			}
			if opt.history.Model, err = foreign.ParseModel(opt.model); err != nil {
				return &usageError{fmt.Errorf("--%w", err)}
			}
			if cmd.Flags().Changed("init") {
				opt.history.Init = &opt.init
			}
			return check(cmd.Context(), args, opt)
		},
	}
	cmd.Flags().StringVarP(&opt.output, "output", "o", "text", "text or json (the consistency object)")
	cmd.Flags().DurationVar(&opt.budget.Budget, "budget", 0, "time the checker may take for each (default 2m)")
	cmd.Flags().StringVar(&opt.format, "format", "", "of the files: brownout, jepsen-log, kv-log or edn (default: by their first line)")
	cmd.Flags().StringVar(&opt.model, "model", "", "of the files: kv, cas-register, append-list or mutex (default: by the format)")
	cmd.Flags().StringVar(&opt.explain, "explain", "", "write each conflict's operations, a timeline and porcupine's picture into this `directory`")
	cmd.Flags().StringVar(&opt.init, "init", "", "the register's value at the start; nil is none")
	return cmd
}

// check judges each of args, also those after one that cannot be read.
func check(ctx context.Context, args []string, opt checkOptions) error {
	o, err := newOutput(opt.output)
	if err != nil {
		return err
	}
	codes := make([]int, 0, len(args))
	for _, arg := range args {
		code, err := checkOne(ctx, o, arg, opt)
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if err != nil {
			fmt.Fprintln(o.talk, "brownout:", err)
			code = exitUsage
		}
		codes = append(codes, code)
	}
	if code := worstCode(codes...); code != 0 {
		return &silent{code}
	}
	return nil
}

func checkOne(ctx context.Context, o *output, arg string, opt checkOptions) (int, error) {
	if arg == "-" {
		return checkHistory(ctx, o, os.Stdin, "stdin", opt)
	}
	if st, err := os.Stat(arg); err == nil && !st.IsDir() {
		f, err := os.Open(arg)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		return checkHistory(ctx, o, f, arg, opt)
	}
	dir, err := run.Find(run.StoreDir, arg)
	if err != nil {
		return 0, err
	}
	if opt.history != (foreign.Options{}) {
		return 0, fmt.Errorf("%s is a run: --format, --model and --init are for files of other tools", arg)
	}
	fsys, done, err := recordOf(dir)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", dir, err)
	}
	defer done()
	res, err := judge.Judge(ctx, fsys, opt.budget)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", dir, err)
	}
	if err := explain(opt, res.Consistency, res.Faults); err != nil {
		return 0, err
	}
	if o.json {
		return res.ExitCode, o.print(res.Consistency)
	}
	return res.ExitCode, report.Text(o.out, res, o.colour)
}

func checkHistory(ctx context.Context, o *output, f *os.File, path string, opt checkOptions) (int, error) {
	r := newReading(o, f, path)
	c, err := judge.History(ctx, r, opt.history, opt.budget)
	r.done()
	if err != nil {
		return 0, located(path, err)
	}
	code := judge.ConsistencyVerdict(c).ExitCode()
	c.File = path
	if err := explain(opt, c, nil); err != nil {
		return 0, err
	}
	if o.json {
		return code, o.print(c)
	}
	return code, report.Consistency(o.out, path, c, o.colour)
}

// explain writes pictures of what is wrong, if they are wanted.
func explain(opt checkOptions, c run.Consistency, faults []run.Fault) error {
	if opt.explain == "" {
		return nil
	}
	return report.Violations(opt.explain, c, faults)
}

// located says where in a file an error is, as compilers do.
func located(path string, err error) error {
	if l, ok := errors.AsType[*history.LineError](err); ok {
		return fmt.Errorf("%s:%d: %w", path, l.Line, l.Err)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// A reading shows on a terminal how far a file has been read, and that it is
// being checked.
type reading struct {
	r          io.Reader
	o          *output
	name       string
	size, read int64
	began      time.Time
	mu         sync.Mutex
	stop       chan struct{}
	gone       sync.WaitGroup
}

func newReading(o *output, f *os.File, name string) *reading {
	r := &reading{r: f, o: o, name: filepath.Base(name), began: time.Now(), stop: make(chan struct{})}
	if st, err := f.Stat(); err == nil {
		r.size = st.Size()
	}
	if o.tty {
		r.gone.Go(r.show)
	}
	return r
}

func (r *reading) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	r.mu.Lock()
	r.read += int64(n)
	r.mu.Unlock()
	return n, err
}

func (r *reading) show() {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-r.stop:
			fmt.Fprint(r.o.talk, "\r\x1b[K")
			return
		case <-tick.C:
		}
		r.mu.Lock()
		what := "checking"
		if r.read < r.size {
			what = fmt.Sprintf("reading %d%%", 100*r.read/r.size)
		}
		r.mu.Unlock()
		fmt.Fprintf(r.o.talk, "\r\x1b[K%s: %s, %s", r.name, what, time.Since(r.began).Round(time.Second))
	}
}

func (r *reading) done() {
	close(r.stop)
	r.gone.Wait()
}

func showCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "show RUN",
		Short: "Print the result of a run as it was judged",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			o, err := newOutput(format)
			if err != nil {
				return err
			}
			dir, err := run.Find(run.StoreDir, args[0])
			if err != nil {
				return &usageError{err}
			}
			res, err := run.ReadResult(os.DirFS(dir))
			if err != nil {
				if errors.Is(err, os.ErrNotExist) {
					err = fmt.Errorf("%s was never judged; brownout check %s does it now", dir, args[0])
				}
				return &usageError{err}
			}
			if o.json {
				return o.print(res)
			}
			return report.Text(o.out, res, o.colour)
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json (the whole result)")
	return cmd
}

func lsCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the runs here, newest last",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			o, err := newOutput(format)
			if err != nil {
				return err
			}
			return listRuns(o)
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

// runRow is one line of ls.
type runRow struct {
	Run      string `json:"run"`
	Scenario string `json:"scenario"`
	Verdict  string `json:"verdict"` // of run.Verdict, or "not judged"
	Why      string `json:"why"`
}

func listRuns(o *output) error {
	ids, err := run.List(run.StoreDir)
	if err != nil {
		return err
	}
	rows := make([]runRow, 0, len(ids))
	for _, id := range ids {
		row := runRow{Run: id, Verdict: "not judged"}
		if res, err := run.ReadResult(os.DirFS(run.StoreDir + "/" + id)); err == nil {
			row.Scenario, row.Verdict, row.Why = res.Scenario, string(res.Verdict), res.Why
		}
		rows = append(rows, row)
	}
	if o.json {
		return o.print(rows)
	}
	if len(rows) == 0 {
		fmt.Fprintln(o.talk, "no runs in", run.StoreDir, "yet: sudo brownout demo makes one")
	}
	for _, r := range rows {
		fmt.Fprintf(o.out, "%-12s  %s  %s\n", r.Verdict, r.Run, r.Why)
	}
	return nil
}

// usageArgs makes a wrong number of arguments a usage error.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &usageError{fmt.Errorf("%s: %w (see %s --help)", cmd.CommandPath(), err, cmd.CommandPath())}
		}
		return nil
	}
}
