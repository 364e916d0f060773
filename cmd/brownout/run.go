package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"brownout/internal/plan"
	"brownout/internal/report"
	"brownout/internal/run"
	"brownout/internal/seed"
	"brownout/scenarios"
)

type runOptions struct {
	output   string
	seed     uint64
	seedSet  bool
	set      []string
	out      string
	target   string
	nodes    int
	nodesSet bool
	dryRun   bool
	repeat   int
	keep     bool

	onViolation string // stop or continue
}

// given remembers which flags were given where their zero is a value too.
func (opt *runOptions) given(cmd *cobra.Command) {
	opt.seedSet = cmd.Flags().Changed("seed")
	opt.nodesSet = cmd.Flags().Changed("nodes")
}

func runCommand() *cobra.Command {
	var opt runOptions
	cmd := &cobra.Command{
		Use:   "run FILE|NAME...",
		Short: "Run scenarios: files, or built-in ones by name (root)",
		Args:  usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			opt.given(cmd)
			return runScenarios(cmd.Context(), args, opt)
		},
	}
	runFlags(cmd, &opt)
	return cmd
}

func runFlags(cmd *cobra.Command, opt *runOptions) {
	f := cmd.Flags()
	f.StringVarP(&opt.output, "output", "o", "text", "text or json (the result)")
	f.Uint64Var(&opt.seed, "seed", 0, "seed of the plan (default: the scenario's)")
	f.StringArrayVar(&opt.set, "set", nil, "override a field: PATH=VALUE, e.g. workload.load.rate=500/s")
	f.StringVar(&opt.out, "out", "", "directory of the run (several runs: their parent); default runs/ID")
	f.StringVar(&opt.target, "target", "", "kind of target, overrides target.kind")
	f.IntVar(&opt.nodes, "nodes", 0, "number of nodes, overrides target.nodes")
	f.BoolVar(&opt.dryRun, "dry-run", false, "print the plan and stop")
	f.IntVar(&opt.repeat, "repeat", 1, "how often to run each scenario")
	f.StringVar(&opt.onViolation, "on-violation", "stop", "stop or continue: whether a violation that is seen while the run goes on ends it")
	f.BoolVar(&opt.keep, "keep", false, "keep the nodes' data also when the run passes; at a terminal, keep the nodes of a run that did not pass running until Ctrl-C or brownout down")
}

// loaded is a scenario with its plan and the bytes it came from.
type loaded struct {
	plan   *plan.Plan
	source []byte
	watch  bool // end the run with the first violation
}

// load reads, overrides and resolves one scenario.
func load(arg string, opt runOptions) (loaded, error) {
	set := opt.set
	if opt.target != "" {
		set = append(set, "target.kind="+opt.target)
	}
	if opt.nodesSet {
		set = append(set, fmt.Sprintf("target.nodes=%d", opt.nodes))
	}
	sc, source, err := scenarios.Load(arg, set)
	if err != nil {
		return loaded{}, &usageError{err}
	}
	s := sc.Seed
	if opt.seedSet {
		s = opt.seed
	}
	p, err := scenarios.Resolve(sc, s, version)
	if err != nil {
		return loaded{}, &usageError{err}
	}
	return loaded{p, source, opt.onViolation == "stop"}, nil
}

func runScenarios(ctx context.Context, args []string, opt runOptions) error {
	o, err := newOutput(opt.output)
	if err != nil {
		return err
	}
	if opt.onViolation != "stop" && opt.onViolation != "continue" {
		return &usageError{fmt.Errorf("--on-violation %q: want stop or continue", opt.onViolation)}
	}
	if opt.repeat < 1 {
		return &usageError{fmt.Errorf("--repeat %d: want 1 or more", opt.repeat)}
	}
	var all []loaded // every mistake is found before anything is started
	var errs []error
	for _, arg := range args {
		l, err := load(arg, opt)
		errs = append(errs, err)
		all = append(all, l)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if opt.dryRun {
		for _, l := range all {
			if _, err := o.out.Write(scenarios.Encode(l.plan)); err != nil {
				return err
			}
		}
		return nil
	}
	if opt.keep && !attended() {
		fmt.Fprintln(o.talk, "brownout: --keep: no terminal to end it from: the nodes end with the run, and only their data stays")
	}
	// A pipe that closes behind us (| head) does not kill a run. Caught, not
	// ignored: what is ignored stays so in the programs that we start.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	codes := []int{}
	times := map[string]int{} // two files may have one name
	for range opt.repeat {
		for _, l := range all {
			times[l.plan.Scenario]++
			dir, id := runDir(l.plan, opt, len(all)*opt.repeat > 1, times[l.plan.Scenario])
			code, err := runOne(ctx, o, l, dir, id, opt.keep)
			if err != nil {
				code = exitCode(err) // says why
			}
			codes = append(codes, code)
			if code == exitUsage || code == exitInterrupted || ctx.Err() != nil { // the next would end alike
				return &silent{worstCode(codes...)}
			}
		}
	}
	if code := worstCode(codes...); code != 0 {
		return &silent{code}
	}
	return nil
}

// runDir names the nth run of a scenario and its directory.
func runDir(p *plan.Plan, opt runOptions, several bool, n int) (dir, id string) {
	now := time.Now()
	id = run.NewID(now, p.Scenario, suffix(now))
	switch {
	case opt.out == "":
		return filepath.Join(run.StoreDir, id), id
	case several:
		return filepath.Join(opt.out, fmt.Sprintf("%s-%d", p.Scenario, n)), id
	}
	return opt.out, id
}

// suffix tells two runs of one second apart; it also names all that the run
// creates on the host, so it must differ between runs at the same time.
func suffix(now time.Time) string {
	const letters = "0123456789abcdefghijkmnpqrstuvwxyz"
	r := seed.Stream(uint64(now.UnixNano())^uint64(os.Getpid())<<40, "run id")
	b := make([]byte, 4)
	for i := range b {
		b[i] = letters[r.Uint64()%uint64(len(letters))]
	}
	return string(b)
}

// runOne runs one plan, judges it from its files and prints the result.
func runOne(ctx context.Context, o *output, l loaded, dir, id string, keep bool) (int, error) {
	k := &keeper{o: o, dir: dir, id: id, live: newProgress(o, l.plan), keep: keep}
	runErr := liveRun(ctx, l, k)
	keeping.Store(false)
	k.live.done()
	if !recorded(dir, id) {
		if _, refused := errors.AsType[*scenarios.DirError](runErr); refused || errors.Is(runErr, errors.ErrUnsupported) {
			return 0, runErr
		}
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			runErr = errors.New("it was removed while the run went on")
		}
		return 0, &unjudged{dir, cmp.Or(runErr, errors.New("its manifest is another run's, or damaged"))}
	}
	if errors.Is(runErr, errors.ErrUnsupported) && !keep && idle(dir) {
		_ = os.RemoveAll(dir) // no run took place: the error says all that it holds
		return 0, runErr
	}
	code, err := k.judge(ctx, false)
	if err != nil {
		return 0, errors.Join(runErr, err)
	}
	if i, ok := errors.AsType[*interrupted](context.Cause(ctx)); ok && !k.held {
		return 0, i
	}
	if runErr != nil {
		fmt.Fprintln(o.talk, "brownout:", runErr)
		if errors.Is(runErr, errors.ErrUnsupported) {
			return exitUnsupported, nil
		}
	}
	if code == 0 && !keep {
		dropData(dir)
	}
	return code, nil
}

// recorded reports whether the run called id got as far as leaving something to
// judge in dir. A directory that was refused may hold another run.
func recorded(dir, id string) bool {
	m, err := run.ReadManifest(os.DirFS(dir))
	return err == nil && m.Run == id
}

// idle reports whether no operation was recorded in dir.
func idle(dir string) bool {
	st, err := os.Stat(filepath.Join(dir, run.HistoryFile))
	return err == nil && st.Size() == 0
}

// unjudged is a run that went on, and whose record says nothing.
type unjudged struct {
	dir string
	err error
}

func (u *unjudged) Error() string {
	return fmt.Sprintf("inconclusive: nothing to judge in %s: %v", u.dir, u.err)
}
func (u *unjudged) Unwrap() error { return u.err }

// dropData removes the nodes' data of a run that passed; logs stay.
func dropData(dir string) {
	data, err := filepath.Glob(filepath.Join(dir, run.NodesDir, "*", "data"))
	if err != nil {
		return
	}
	for _, d := range data {
		_ = os.RemoveAll(d) // only space is at stake
	}
}

// result prints what a run came to.
func (o *output) result(res run.Result, dir string) error {
	if o.json {
		return o.print(res)
	}
	if err := report.Text(o.out, res, o.colour); err != nil {
		return err
	}
	_, err := fmt.Fprintf(o.out, "\nRun        %s\nAgain      brownout check %s   (no root)\n", dir, dir)
	return err
}

func listCommand() *cobra.Command {
	var format string
	var bugs bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the built-in scenarios",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			o, err := newOutput(format)
			if err != nil {
				return err
			}
			all := scenarios.List()
			if bugs {
				all = scenarios.ListBugs()
			}
			if o.json {
				return o.print(all)
			}
			for _, s := range all {
				fmt.Fprintf(o.out, "%-24s  %s\n", s.Name, s.Summary)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	cmd.Flags().BoolVar(&bugs, "bugs", false, "those that find a bug planted in kvserver, instead")
	return cmd
}

func schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON schema of scenario files, for editors",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			b, err := scenarios.Schema()
			if err != nil {
				return err
			}
			_, err = fmt.Println(strings.TrimRight(string(b), "\n"))
			return err
		},
	}
}
