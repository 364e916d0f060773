package cluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"brownout/internal/run"
	"brownout/internal/undo"
)

// TestMain lets the test binary be started again as the helpers of a cluster,
// as its target, and as a supervisor that gets killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch args := os.Args[2:]; os.Args[1] {
		case "_init":
			os.Exit(InitMain(args))
		case "_reaper":
			os.Exit(ReaperMain(args))
		case "_target":
			os.Exit(targetMain(args))
		case "_supervisor":
			os.Exit(supervisorMain(args))
		}
	}
	os.Exit(m.Run())
}

// testTarget runs this binary on the nodes. Its first node leads for ever.
type testTarget struct {
	args   []string // of targetMain
	env    []string
	leader *atomic.Pointer[Status] // what all nodes say, if it is set
}

func (t testTarget) Command(n *Node) Command {
	return Command{
		Argv:  append([]string{"/bin/brownout", "_target"}, t.args...),
		Env:   append([]string{"NODE=" + n.Name()}, t.env...),
		Files: map[string][]byte{"run/node.conf": []byte(n.Name())},
	}
}

func (t testTarget) Status(ctx context.Context, n *Node) (Status, error) {
	answer, err := ask(ctx, n, "status")
	if err != nil {
		return Status{}, err
	}
	st := Status{Ready: answer == "ready", Role: RoleFollower, Leader: "n1", Term: 1}
	if t.leader != nil {
		st.Leader, st.Term = t.leader.Load().Leader, t.leader.Load().Term
	}
	if n.Name() == st.Leader {
		st.Role = RoleLeader
	}
	return st, nil
}

// ask sends the test target of a node one line and returns its answer.
func ask(ctx context.Context, n *Node, words string) (string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", n.Admin())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if d, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(d)
	}
	if _, err := fmt.Fprintln(conn, words); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

// insight is what a target sees of the world from inside its box.
type insight struct {
	UID, GID, PID  int
	Host           string
	Pids           []int
	Caps           string // CapEff of /proc/self/status
	Bounding       string
	NoNewPrivs     string
	Namespaces     map[string]string
	DataFS         string // type of the file system at /data
	Root           []string
	Fds            []string
	OwnedByOthers  []string // files of other nodes that it can read
	Conf           string
	Hosts          string
	EtcIsReadOnly  bool
	UsrIsReadOnly  bool
	PeersReachable map[string]string
}

// targetMain is a program on a node: it serves on /run/admin.sock.
func targetMain(args []string) int {
	if len(args) > 0 && args[0] == "crash" {
		fmt.Fprintln(os.Stderr, "starting", "\nbad configuration: no such thing")
		return 3
	}
	if len(args) > 0 && args[0] == "idle" {
		<-time.After(time.Hour)
	}
	state := "ready"
	if len(args) > 0 && args[0] == "sulk" {
		fmt.Fprintln(os.Stderr, "waiting for a quorum that never comes")
		state = "starting"
	}
	l4, err := net.Listen("tcp", ":7000") // echo, over both IPs
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() {
		for {
			c, err := l4.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, "hello from", os.Getenv("NODE"))
			c.Close()
		}
	}()
	os.Remove("/run/admin.sock")
	l, err := net.Listen("unix", "/run/admin.sock")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("listening")
	for {
		c, err := l.Accept()
		if err != nil {
			return 1
		}
		go func() {
			defer c.Close()
			line, _ := bufio.NewReader(c).ReadString('\n')
			words := strings.Fields(line)
			if len(words) == 0 {
				return
			}
			switch words[0] {
			case "status":
				fmt.Fprintln(c, state)
			case "inspect":
				b, _ := json.Marshal(look(words[1:]))
				fmt.Fprintln(c, string(b))
			case "write":
				f, err := os.OpenFile("/data/"+words[1], os.O_CREATE|os.O_WRONLY, 0o600)
				if err == nil {
					_, err = f.WriteString(words[2])
					err = errors.Join(err, f.Sync(), f.Close())
				}
				fmt.Fprintln(c, err)
			case "read":
				b, err := os.ReadFile("/data/" + words[1])
				fmt.Fprintln(c, string(b), err)
			case "dial":
				d := net.Dialer{Timeout: 2 * time.Second}
				p, err := d.Dial("tcp", words[1])
				if err != nil {
					fmt.Fprintln(c, err)
					return
				}
				line, _ := bufio.NewReader(p).ReadString('\n')
				fmt.Fprintln(c, strings.TrimSpace(line))
				p.Close()
			case "child":
				pid, err := syscall.ForkExec("/brownout", []string{"brownout", "_target", "idle"}, &syscall.ProcAttr{Env: os.Environ(), Sys: &syscall.SysProcAttr{Setsid: true}})
				fmt.Fprintln(c, pid, err)
			case "exit":
				code, _ := strconv.Atoi(words[1])
				os.Exit(code)
			case "eat":
				var kept [][]byte
				for range 512 {
					b := bytes.Repeat([]byte{1}, 1<<20)
					kept = append(kept, b)
				}
				fmt.Fprintln(c, "ate", len(kept), "MiB")
			case "panic":
				panic("as asked")
			}
		}()
	}
}

func look(foreign []string) insight {
	in := insight{UID: os.Getuid(), GID: os.Getgid(), PID: os.Getpid(), Namespaces: map[string]string{}}
	in.Host, _ = os.Hostname()
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			in.Pids = append(in.Pids, pid)
		}
	}
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		switch k {
		case "CapEff":
			in.Caps = v
		case "CapBnd":
			in.Bounding = v
		case "NoNewPrivs":
			in.NoNewPrivs = v
		}
	}
	for _, ns := range []string{"net", "mnt", "pid", "uts", "ipc"} {
		in.Namespaces[ns], _ = os.Readlink("/proc/self/ns/" + ns)
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		switch f := strings.Fields(line); f[4] {
		case "/data":
			in.DataFS = f[slices.Index(f, "-")+1]
		case "/usr":
			in.UsrIsReadOnly = strings.HasPrefix(f[5], "ro")
		}
	}
	entries, _ = os.ReadDir("/")
	for _, e := range entries {
		in.Root = append(in.Root, e.Name())
	}
	entries, _ = os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			in.Fds = append(in.Fds, to)
		}
	}
	for _, p := range foreign {
		if _, err := os.ReadFile(p); err == nil {
			in.OwnedByOthers = append(in.OwnedByOthers, p)
		}
	}
	b, _ := os.ReadFile("/run/node.conf")
	in.Conf = string(b)
	b, _ = os.ReadFile("/etc/hosts")
	in.Hosts = string(b)
	return in
}

// events collects what a cluster tells.
type events struct {
	mu  sync.Mutex
	all []run.Event
}

func (e *events) emit(ev run.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
}

func (e *events) of(t run.EventType) []run.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	var found []run.Event
	for _, ev := range e.all {
		if ev.Type == t {
			found = append(found, ev)
		}
	}
	return found
}

// testConfig is that of a cluster of the test target, in a directory of the test's.
func testConfig(tb testing.TB, nodes int, target Target) (Config, *events) {
	tb.Helper()
	return testConfigIn(tb, tb.TempDir(), nodes, target)
}

func testConfigIn(tb testing.TB, dir string, nodes int, target Target) (Config, *events) {
	tb.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	j, err := undo.Create(filepath.Join(dir, run.CleanupFile), undo.Revert)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := j.Unwind(); err != nil {
			tb.Errorf("unwind: %v", err)
		}
	})
	ev := new(events)
	return Config{
		ID: fmt.Sprintf("t%d%d", os.Getpid(), ids.Add(1)), Dir: dir, Nodes: nodes, Target: target, Journal: j, Emit: ev.emit,
		Ready: 15 * time.Second, Disk: DiskSlowFS,
	}, ev
}

// up brings a cluster up and down with the test.
func up(tb testing.TB, cfg Config) *Cluster {
	tb.Helper()
	c, err := Up(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { down(tb, c) })
	return c
}

func down(tb testing.TB, c *Cluster) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.Down(ctx); err != nil {
		tb.Errorf("down: %v", err)
	}
}
