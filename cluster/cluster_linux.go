package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"brownout/internal/faultfs"
	"brownout/internal/run"
	"brownout/internal/sys/cgroup"
	"brownout/internal/undo"
)

// A Cluster is a set of nodes that are up, from [Up] to [Cluster.Down].
type Cluster struct {
	cfg    Config
	owner  undo.Owner
	nodes  []*Node
	boxes  []*Node       // the nodes, and the cache if there is one
	groups *cgroup.Group // of the run, around those of the nodes
	sw     *Switch
	client *os.File
	parent *parentThread
	reaper *reaper
	mark   int // in the journal: what was recorded since is ours
	stages []stage

	plugging   sync.Mutex
	background sync.WaitGroup // all goroutines but parent's
	emitting   sync.Mutex
	going      chan struct{} // closed when Down begins
	goOnce     sync.Once
	down       sync.Once
	downErr    error

	mu      sync.Mutex
	broken  error  // the testbed's own failure while it came up
	leaders []lead // by shard
	mech    map[string]string
}

// A stage is a step of Up and how long it took.
type stage struct {
	name string
	took time.Duration
}

// Up brings a cluster up and returns when all nodes are ready and agree on a
// leader. On error, everything is undone; the error names the node and the
// cause and carries the end of its log.
func Up(ctx context.Context, cfg Config) (_ *Cluster, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := privileged(); err != nil {
		return nil, err
	}
	disk := DiskPlain
	if cfg.Disk != DiskPlain {
		err := faultfs.Probe()
		switch {
		case err == nil:
			disk = DiskSlowFS
		case cfg.Disk == DiskAny && errors.Is(err, errors.ErrUnsupported):
			disk += ": " + err.Error()
		default:
			return nil, err
		}
		cfg.Disk, _, _ = strings.Cut(disk, ":")
	}
	c := &Cluster{
		cfg: cfg, nodes: newNodes(cfg.Dir, cfg.Nodes), mark: cfg.Journal.Mark(),
		going: make(chan struct{}), mech: map[string]string{"disk": disk},
	}
	if c.boxes = slices.Clone(c.nodes); cfg.Cache {
		c.boxes = append(c.boxes, NewCache(cfg.Dir, c.nodes))
	}
	if c.owner, err = undo.Self(cfg.ID); err != nil {
		return nil, err
	}
	if c.owner.InUse() { // before the journal and the reaper learn a name that is another's
		return nil, fmt.Errorf("this process holds a cluster of the run id %s already", cfg.ID)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.Ready, fmt.Errorf("not within %v", cfg.Ready))
	defer cancel()
	defer func() {
		if err == nil {
			return
		}
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), downWithin)
		defer cancel()
		err = errors.Join(err, c.Down(down))
	}()
	if err := c.build(ctx); err != nil {
		return nil, err
	}
	lap := c.lapTimer()
	if err := c.WaitReady(ctx); err != nil {
		return nil, err
	}
	lap("ready")
	return c, nil
}

// build makes everything and starts the targets. What waits for the kernel or
// for other processes overlaps: the switch is made beside the boxes, and a node
// starts while the next one's box is made.
func (c *Cluster) build(ctx context.Context) (err error) {
	lap := c.lapTimer()
	c.parent = newParentThread()
	whole := ctx
	g, ctx := errgroup.WithContext(ctx)
	switched := make(chan struct{})
	defer func() {
		if err != nil {
			// The error in hand is the cause: it stops the others, who are waited for.
			g.Go(func() error { return err })
		}
		if e := g.Wait(); err == nil {
			err = e
		}
		if err == nil { // those who saw the end of their time left the word to us
			err = context.Cause(whole)
		}
		lap("start")
	}()
	var switchErr error
	g.Go(func() error {
		defer close(switched)
		switchErr = c.makeSwitch(ctx)
		return switchErr
	})
	uid, err := c.makeDirs()
	for _, n := range c.boxes {
		if err == nil && c.cfg.Loop {
			err = n.makeImage(ctx)
		}
	}
	if err != nil {
		return fmt.Errorf("make the nodes' directories: %w", err)
	}
	lap("dirs")
	// First who cleans up after us, then what is to be cleaned up.
	if c.reaper, err = startReaper(c.cfg.Exe, c.owner); err != nil {
		return fmt.Errorf("start reaper: %w", err)
	}
	lap("reaper")
	record := undo.Record{Kind: undo.Cgroup, Name: c.owner.String(), Run: c.owner.String()}
	if err := c.cfg.Journal.Do(record, c.makeGroups); err != nil {
		return fmt.Errorf("make cgroups: %w", err)
	}
	lap("cgroups")
	names := hosts(c.boxes, len(c.nodes))
	for i, n := range c.boxes {
		if ctx.Err() != nil {
			return nil // whoever failed says why
		}
		s := setup{Name: n.name, Dir: n.dir, Disk: c.cfg.Disk, Pass: c.cfg.Passthrough, Trap: c.cfg.Trap, Loop: c.cfg.Loop, Hosts: names}
		if uid != 0 {
			s.UID = uid + i
		}
		if c.cfg.Block != "" {
			if err := c.makeBlock(n, s.UID); err != nil {
				return fmt.Errorf("make block device of %s: %w", n.name, err)
			}
			s.Block = n.box.block.dev.Path()
		}
		if err := n.clone(s); err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
		g.Go(func() error {
			<-switched
			if switchErr != nil {
				return switchErr
			}
			return c.join(ctx, n)
		})
	}
	lap("clone")
	return nil
}

// join plugs a box into the switch, waits until it is built, and starts its target.
func (c *Cluster) join(ctx context.Context, n *Node) error {
	if ctx.Err() != nil {
		return nil
	}
	c.plugging.Lock() // the kernel has one lock for all links anyway
	_, err := c.sw.Plug(ctx, n.index, n.name, n.box.netns)
	c.plugging.Unlock()
	if err != nil {
		return err
	}
	if _, err := n.box.await(ctx, verbSetup, n.box.built); err != nil {
		return fmt.Errorf("%s: %w", n.name, err)
	}
	if n.box.block != nil { // from here on it goes when the box does, whatever happens to us
		if err := n.box.block.dev.Remove(); err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
	}
	return n.Start(ctx)
}

// lapTimer returns a function that notes how long the stage took that ends now.
func (c *Cluster) lapTimer() func(stage string) {
	last := time.Now()
	return func(name string) {
		now := time.Now()
		c.stages = append(c.stages, stage{name, now.Sub(last)})
		last = now
	}
}

// makeDirs makes the nodes' directories and returns the first of their users,
// 0 if they cannot have any of their own.
func (c *Cluster) makeDirs() (uid int, err error) {
	uid = uidBase
	c.note("uid", fmt.Sprintf("own, from %d", uidBase))
	for i, n := range c.boxes {
		err := n.makeDirs(uid + i)
		if c.cfg.noUsers {
			err = syscall.EPERM
		}
		if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EPERM) {
			c.note("uid", fmt.Sprintf("root without capabilities (%v)", err))
			for _, n := range c.boxes {
				if err := n.makeDirs(0); err != nil {
					return 0, err
				}
			}
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return uid, nil
}

// makeGroups makes the cgroups of the run and of its nodes.
func (c *Cluster) makeGroups() (err error) {
	host, err := cgroup.Discover()
	if err != nil {
		return err
	}
	c.note("cgroup", string(host.Mode()))
	if c.groups, err = host.Create(c.owner.String()); err != nil {
		return err
	}
	if err := weigh(c.groups, len(c.boxes)); err != nil {
		c.note("cpu weight", err.Error()) // nodes come short on a busy host, which the host's noise tells
	}
	for _, n := range c.boxes {
		n.box = box{c: c, waiting: map[int]chan report{}}
		if n.box.group, err = c.groups.Child(n.name); err != nil {
			return err
		}
	}
	return nil
}

// weigh lets the run's group weigh as much as its nodes would on their own:
// otherwise all of them together had the share of one process of the host.
func weigh(g *cgroup.Group, nodes int) error {
	dir, version, err := g.Dir("cpu")
	if err != nil {
		return err
	}
	file, each := "cpu.shares", 1024 // of v1: a group's default
	if version == 2 {
		file, each = "cpu.weight", 100
	}
	return os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(each*nodes)), 0)
}

// Nodes returns all nodes in order.
func (c *Cluster) Nodes() []*Node { return c.nodes }

// Group is the run's cgroup, around those of the nodes. Who needs others on
// this host makes them below it: they go away with it, also after a kill -9.
func (c *Cluster) Group() *cgroup.Group { return c.groups }

// Owner names the run on this host; helper processes get it in their
// environment as [undo.RunEnv], so that they can be told from others' when they are orphans.
func (c *Cluster) Owner() undo.Owner { return c.owner }

// Boxes returns all nodes in order, and then the cache if there is one.
func (c *Cluster) Boxes() []*Node { return c.boxes }

// Node returns the node called name, which may be [CacheName].
func (c *Cluster) Node(name string) (*Node, bool) {
	for _, n := range c.boxes {
		if n.name == name {
			return n, true
		}
	}
	return nil, false
}

// Index returns the port on the switch of a node or of [ClientName].
func (c *Cluster) Index(name string) (int, bool) {
	if name == ClientName {
		return len(c.nodes), true
	}
	n, ok := c.Node(name)
	if !ok {
		return 0, false
	}
	return n.index, true
}

// Mechanisms says by what means the cluster was made on this host, for the manifest.
func (c *Cluster) Mechanisms() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.mech)
}

// note records that something was made by other means than usual.
func (c *Cluster) note(what, how string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mech[what] = how
}

// Statuses asks all nodes at once what they are, and waits at most half a
// second. They are in the nodes' order; a node that cannot be asked has Err.
func (c *Cluster) Statuses(ctx context.Context) []Status {
	sts := make([]Status, len(c.nodes))
	var wg sync.WaitGroup
	for i, n := range c.nodes {
		wg.Go(func() { sts[i] = n.status(ctx) })
	}
	wg.Wait()
	return sts
}

// emit passes an event on. Its time is left to whoever writes it down, who
// knows the run's zero.
func (c *Cluster) emit(e run.Event) {
	c.emitting.Lock()
	defer c.emitting.Unlock()
	c.cfg.Emit(e)
}

// failed records the first failure of the testbed itself.
func (c *Cluster) failed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken == nil {
		c.broken = err
	}
}

func (c *Cluster) brokenBy() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken
}

func (c *Cluster) goingDown() bool {
	select {
	case <-c.going:
		return true
	default:
		return false
	}
}

// downWithin bounds a Down whose caller did not.
const downWithin = 10 * time.Second

// Down kills the nodes and takes away all that [Up] made on the host, past
// failures. What stays are files in the run's directory. A second Down returns
// what the first did.
func (c *Cluster) Down(ctx context.Context) error {
	c.down.Do(func() { c.downErr = c.takeDown(ctx) })
	return c.downErr
}

func (c *Cluster) takeDown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, downWithin)
	defer cancel()
	c.goOnce.Do(func() { close(c.going) })
	var errs []error
	for _, n := range c.boxes {
		n.box.thaw(ctx)
	}
	for _, n := range c.boxes {
		if n.box.init != nil {
			_ = n.box.init.Process.Kill() // with init dies all that is in its PID namespace
		}
	}
	for _, n := range c.boxes {
		if n.box.init == nil {
			continue
		}
		select {
		case <-n.box.gone:
		case <-ctx.Done():
			errs = append(errs, fmt.Errorf("end %s: its init does not end: %w", n.name, context.Cause(ctx)))
		}
	}
	errs = append(errs, c.closeSwitch())
	for _, n := range c.boxes {
		if n.box.init != nil {
			n.box.conn.Close()
		}
		closeAll(append(n.box.files, n.box.netns)...)
		dropIfEmpty(n.dir + "/box.log")
	}
	errs = append(errs, c.cfg.Journal.UnwindTo(c.mark))
	if c.parent != nil {
		c.parent.end()
	}
	if c.reaper != nil {
		errs = append(errs, c.reaper.end(ctx))
	}
	idle := make(chan struct{})
	go func() { c.background.Wait(); close(idle) }()
	select {
	case <-idle:
	case <-ctx.Done():
		errs = append(errs, fmt.Errorf("end the cluster's work: %w", context.Cause(ctx)))
	}
	return errors.Join(errs...)
}

// thaw lets a node's processes run again, whoever stopped them: what a v1
// freezer holds does not die. That there is no freezer, or nothing to thaw, is fine.
func (b *box) thaw(ctx context.Context) {
	if b.group == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for _, version := range []int{1, 2} {
		if f, err := b.group.Freezer(version); err == nil {
			_ = f.Thaw(ctx)
		}
	}
}

// dropIfEmpty removes the log of an init that had nothing to say.
func dropIfEmpty(path string) {
	if st, err := os.Stat(path); err == nil && st.Size() == 0 {
		_ = os.Remove(path)
	}
}
