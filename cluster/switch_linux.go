package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"brownout/internal/sys/bpf"
	"brownout/internal/sys/link"
	"brownout/internal/sys/netns"
	"brownout/internal/undo"
	"brownout/internal/wire"
)

// MaxPorts is the number of ports of a [Switch]: 0..62.
const MaxPorts = bpf.MaxPorts

// A SwitchConfig says how to make a switch. The zero value of an optional field
// means the default written beside it.
type SwitchConfig struct {
	Run  string // owner that helper processes carry in their environment; optional
	Exe  string // this binary, to be started as "_wire"; default /proc/self/exe
	Seed uint64 // of what is random in impairments
	MTU  int    // of all links; default 1500
	// Congestion is TCP's congestion control between tenants; default cubic, or
	// reno where the kernel lacks it.
	Congestion string
}

// A Port is one place on a switch, as its tenant sees it.
type Port struct {
	Index      int
	Name       string // of the tenant
	MAC        net.HardwareAddr
	IP4, IP6   netip.Addr
	Congestion string // TCP congestion control in force between tenants
}

// A Switch joins network namespaces: a bridge in a namespace of its own, a veth
// pair to each tenant, and a program on each port that can send the frames of
// any directed pair nowhere or through a wire. Nothing of it shows on the host,
// and all of it dies with the process that holds it.
//
// Frames to groups (broadcast, multicast: ARP, neighbour discovery) go nowhere:
// all tenants know each other by permanent neighbours. So a partition is
// complete, and no fault on a pair is ever felt as a fault of name resolution.
//
// Without eBPF the switch is a plain bridge: it carries everything, and
// [Switch.Impair] says what is missing.
type Switch struct {
	cfg  SwitchConfig
	ns   *os.File
	conn *link.Conn
	ipv6 bool

	steer    *bpf.Steering // nil without eBPF
	steerErr error         // why
	flows    flowCuts

	mu    sync.Mutex // guards the fields below and the order of changes of one pair
	emu   emulator
	ports map[int]*port
	inOut map[[2]int]wire.Impairment // what is in force; healthy pairs are not in it
	wired map[[2]int]bool            // pairs of which the wire knows

	wireOnce sync.Once
	wire     *wire.Client
	wireErr  error
	patience time.Duration // with the wire; see [wire.Process]
	tap      *os.File
	tapIndex int
	dead     chan struct{} // closed when a wire that was started has ended, and not by Close
	closing  chan struct{}
	watch    sync.WaitGroup
	close    func() error
}

type port struct {
	Port
	conn   *link.Conn // in the tenant's namespace
	eth0   int
	joined bool
}

// Names and indices inside the switch's own namespace.
const (
	bridgeName, bridgeIndex = "bo-switch", 2
	wireName                = "bo-wire"
	firstPortIndex          = 100
	tenantDevice            = "eth0"
	tapQueue                = 10_000 // frames that wait for the wire to wake up
)

// NewSwitch makes a switch without ports.
func NewSwitch(ctx context.Context, cfg SwitchConfig) (s *Switch, err error) {
	cfg.Exe = cmp.Or(cfg.Exe, "/proc/self/exe")
	cfg.MTU = cmp.Or(cfg.MTU, 1500)
	if cfg.MTU < 1280 || cfg.MTU > 9000 {
		return nil, fmt.Errorf("make switch: MTU %d is not in 1280..9000", cfg.MTU)
	}
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("make switch: %w", err)
	}
	s = &Switch{
		cfg: cfg, ports: map[int]*port{}, inOut: map[[2]int]wire.Impairment{}, wired: map[[2]int]bool{},
		dead: make(chan struct{}), closing: make(chan struct{}),
	}
	s.close = sync.OnceValue(s.closeAll)
	defer func() {
		if err != nil {
			s.Close()
			s, err = nil, fmt.Errorf("make switch: %w", err)
		}
	}()
	loaded := make(chan struct{})
	go func() { // as long as the devices take
		defer close(loaded)
		s.steer, s.steerErr = bpf.Load()
	}()
	s.ns, err = netns.New()
	if err == nil {
		s.conn, err = link.At(s.ns)
	}
	if err == nil {
		err = s.conn.Bridge(bridgeName, bridgeIndex, cfg.MTU)
	}
	<-loaded
	if err != nil {
		return nil, err
	}
	_, noIPv6 := os.Stat("/proc/sys/net/ipv6")
	s.ipv6 = noIPv6 == nil
	return s, nil
}

// Plug joins a namespace to the switch as port index. When it returns, the
// tenant has loopback and an eth0 that is up with both addresses, and can talk
// to every port that was plugged before. The namespace must have no eth0 yet.
func (s *Switch) Plug(ctx context.Context, index int, name string, tenant *os.File) (Port, error) {
	p, err := s.plug(ctx, index, name, tenant)
	if err != nil {
		return Port{}, fmt.Errorf("plug %s into port %d: %w", name, index, err)
	}
	return p, nil
}

func (s *Switch) plug(ctx context.Context, index int, name string, tenant *os.File) (Port, error) {
	if index < 0 || index >= MaxPorts {
		return Port{}, fmt.Errorf("port is not in 0..%d", MaxPorts-1)
	}
	if err := context.Cause(ctx); err != nil {
		return Port{}, err
	}
	p := &port{Port: Port{Index: index, Name: name, MAC: bpf.MAC(index), IP4: IP4(index), IP6: IP6(index)}}
	if err := s.take(p); err != nil {
		return Port{}, err
	}
	if err := s.join(ctx, p, tenant); err != nil {
		s.leave(p)
		return Port{}, err
	}
	return p.Port, nil
}

// take reserves a port.
func (s *Switch) take(p *port) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.ports[p.Index]; q != nil {
		return fmt.Errorf("port is taken by %s", q.Name)
	}
	s.ports[p.Index] = p
	return nil
}

// Unplug takes a port away, and what was asked for on its links.
func (s *Switch) Unplug(ctx context.Context, index int) error {
	s.mu.Lock()
	p := s.ports[index]
	var links [][2]int
	for pair := range s.inOut {
		if pair[0] == index || pair[1] == index {
			links = append(links, pair)
		}
	}
	s.mu.Unlock()
	if p == nil {
		return fmt.Errorf("unplug port %d: nobody is there", index)
	}
	var errs []error
	for _, l := range links {
		errs = append(errs, s.Impair(ctx, l[0], l[1], wire.Impairment{}))
	}
	s.leave(p)
	return errors.Join(errs...)
}

// leave undoes as much of a join as there was. Its own errors say less than the
// one that led here.
func (s *Switch) leave(p *port) {
	s.conn.Delete(firstPortIndex + p.Index)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.conn != nil {
		p.conn.Close()
	}
	delete(s.ports, p.Index)
}

// join makes a port's devices and introduces it to the others.
func (s *Switch) join(ctx context.Context, p *port, tenant *os.File) error {
	if err := s.wireUp(ctx, p, tenant); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.ports {
		if q == p || !q.joined {
			continue
		}
		if err := errors.Join(s.introduce(p, q), s.introduce(q, p)); err != nil {
			return err
		}
	}
	p.joined = true
	return nil
}

// wireUp makes the devices of a port on both ends.
func (s *Switch) wireUp(ctx context.Context, p *port, tenant *os.File) error {
	conn, err := link.At(tenant)
	if err != nil {
		return err
	}
	p.conn = conn
	err = s.conn.Veth(link.Veth{
		Name: fmt.Sprintf("bo-port%d", p.Index), Index: firstPortIndex + p.Index, Bridge: bridgeIndex, MTU: s.cfg.MTU,
		Peer: tenantDevice, PeerMAC: p.MAC, PeerNS: tenant,
	})
	if err != nil {
		return err
	}
	if s.steer != nil {
		// Before the tenant can send: no frame ever passes unseen.
		if err := s.steer.AttachPort(s.conn, p.Index, firstPortIndex+p.Index); err != nil {
			return err
		}
	}
	if p.eth0, err = p.conn.Index(tenantDevice); err != nil {
		return err
	}
	const loopback = 1
	steps := []func() error{
		func() error { return p.conn.Up(loopback) },
		func() error { return p.conn.NoLinkLocal(p.eth0) },
		func() error { return p.conn.Address(p.eth0, netip.PrefixFrom(p.IP4, 24)) },
		func() error {
			ip := netip.PrefixFrom(p.IP6, 64)
			err := p.conn.Address(p.eth0, ip)
			if errors.Is(err, fs.ErrPermission) { // hosts that switch IPv6 off do so for new namespaces too
				on := link.Setting{Path: "ipv6/conf/" + tenantDevice + "/disable_ipv6", Value: "0"}
				if err := link.Sysctl(tenant, on); err != nil {
					return err
				}
				err = p.conn.Address(p.eth0, ip)
			}
			return err
		},
		func() error { return p.conn.Up(p.eth0) },
		func() error { return s.conn.Running(ctx, firstPortIndex+p.Index) },
		// The other end too: until the kernel has told itself that this link is
		// ready, IPv6 has no route to the subnet and answers are lost.
		func() error { return p.conn.Running(ctx, p.eth0) },
	}
	if s.ipv6 {
		steps = append(steps, func() error { return p.conn.Local(ctx, p.IP6) })
	} else {
		steps = slices.Delete(steps, 3, 4)
	}
	steps = append(steps, func() (err error) {
		p.Congestion, err = s.congest(p, tenant)
		return err
	})
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// introduce makes q a permanent neighbour of p.
func (s *Switch) introduce(p, q *port) error {
	if err := p.conn.Neighbour(p.eth0, q.IP4, q.MAC); err != nil || !s.ipv6 {
		return err
	}
	return p.conn.Neighbour(p.eth0, q.IP6, q.MAC)
}

// Impair puts imp on what goes from port src to port dst, in place of what was
// there; the zero Impairment makes the pair healthy again. Several faults on one
// pair are the caller's to merge, see [wire.Compose].
//
// A partition acts at once, also on frames that the wire holds, and needs no
// wire. Anything else takes the pair through the wire, which is started now
// unless [Switch.Prepare] did. When it returns without error, every frame sent
// from then on meets the new impairment. Healing works without a living wire; a
// frame sent while it is under way, for some 0.1 ms, may still go through the
// wire and be overtaken by one that goes past it.
//
// The error is [errors.ErrUnsupported] where the host cannot do it and
// [wire.ErrDead] when the wire has ended: pairs that were impaired through it
// then carry nothing until they are healed.
func (s *Switch) Impair(ctx context.Context, src, dst int, imp wire.Impairment) error {
	if err := s.impair(ctx, src, dst, imp); err != nil {
		return fmt.Errorf("impair %d to %d: %w", src, dst, err)
	}
	return nil
}

func (s *Switch) impair(ctx context.Context, src, dst int, imp wire.Impairment) error {
	if src < 0 || src >= MaxPorts || dst < 0 || dst >= MaxPorts || src == dst {
		return fmt.Errorf("not two ports of 0..%d", MaxPorts-1)
	}
	if err := imp.Validate(); err != nil {
		return err
	}
	if s.steer == nil {
		return s.steerErr
	}
	healthy := wire.Impairment{}
	pair := [2]int{src, dst}
	throughWire := imp != healthy && !imp.Partition
	if throughWire {
		if err := s.Prepare(ctx); err != nil {
			return err
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case throughWire:
		if s.emu.active(pair) {
			return errTwoWays
		}
		if err := s.wire.Set(ctx, src, dst, imp); err != nil {
			return err
		}
		s.wired[pair] = true
		if err := s.steer.Set(src, dst, bpf.Wire); err != nil {
			return err
		}
	case imp.Partition:
		if err := s.steer.Set(src, dst, bpf.Drop); err != nil {
			return err
		}
		// What the wire still holds is dropped, so that nothing from before the
		// partition turns up after it. The rest of what the wire does there
		// goes on from where it was when the partition heals.
		s.rewire(ctx, pair, imp)
	default:
		s.rewire(ctx, pair, imp) // frames it holds go first
		delete(s.wired, pair)
		if err := s.steer.Set(src, dst, s.emu.rule(pair)); err != nil {
			return err
		}
	}
	if imp == healthy {
		delete(s.inOut, pair)
	} else {
		s.inOut[pair] = imp
	}
	return nil
}

// rewire tells the wire of a pair that is taken off it, if it was on it. A wire
// that is dead holds nothing.
func (s *Switch) rewire(ctx context.Context, pair [2]int, imp wire.Impairment) {
	if s.wired[pair] {
		// No error of the wire may stop a heal: the rule in the port has the last word.
		_ = s.wire.Set(context.WithoutCancel(ctx), pair[0], pair[1], imp)
	}
}

// Impairment returns what is in force from port src to port dst.
func (s *Switch) Impairment(src, dst int) wire.Impairment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inOut[[2]int{src, dst}]
}

// Prepare starts the wire, so that the first Impair is as fast as the others.
// It may be called often; a wire that has ended is not started again, because
// what it held is lost and the run with it.
func (s *Switch) Prepare(ctx context.Context) error {
	if s.steer == nil {
		return s.steerErr
	}
	// Not cut short by ctx: it is bounded, and half a wire could not be tried again.
	s.wireOnce.Do(func() { s.wireErr = s.startWire(context.WithoutCancel(ctx)) })
	if s.wireErr != nil {
		return fmt.Errorf("start wire: %w", s.wireErr)
	}
	return s.wire.Err()
}

func (s *Switch) startWire(ctx context.Context) error {
	tap, err := link.Tap(s.ns, wireName)
	if err != nil {
		return err
	}
	s.tap = tap
	if s.tapIndex, err = s.conn.Index(wireName); err != nil {
		return err
	}
	if err := s.conn.Configure(s.tapIndex, s.cfg.MTU, tapQueue); err != nil {
		return err
	}
	if err := s.conn.NoLinkLocal(s.tapIndex); err != nil {
		return err
	}
	if err := s.steer.AttachWire(s.conn, s.tapIndex); err != nil {
		return err
	}
	if err := s.conn.Up(s.tapIndex); err != nil {
		return err
	}
	p := wire.Process{Exe: s.cfg.Exe, Args: []string{"_wire"}, Tap: tap, Seed: s.cfg.Seed, Patience: s.patience}
	if s.cfg.Run != "" {
		p.Env = []string{undo.RunEnv + "=" + s.cfg.Run}
	}
	w, err := wire.Start(ctx, p)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.wire = w
	s.mu.Unlock()
	s.watch.Go(func() { s.minder(w) })
	return nil
}

// pulse is how often the wire is asked whether it is there, so that one that
// hangs is found while nobody changes a fault.
const pulse = time.Second

// minder waits for the end of the wire.
func (s *Switch) minder(w *wire.Client) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	for {
		select {
		case <-w.Done():
			close(s.dead)
			return
		case <-s.closing:
			return
		case <-tick.C:
			go w.Ping(ctx) // one that gets no answer ends the wire
		}
	}
}

// WireDone is closed when the wire has ended before the switch was closed: from
// then on, pairs that are impaired through it carry nothing.
func (s *Switch) WireDone() <-chan struct{} { return s.dead }

// WireErr returns why the wire has ended, or nil.
func (s *Switch) WireErr() error {
	select {
	case <-s.dead:
		return s.wire.Err()
	default:
		return nil
	}
}

// WireStats returns the wire's account of itself since it was last asked with
// reset; ok is false if no wire was ever needed.
func (s *Switch) WireStats(ctx context.Context, reset bool) (st wire.Stats, ok bool, err error) {
	s.mu.Lock()
	w := s.wire
	s.mu.Unlock()
	if w == nil {
		return st, false, nil
	}
	if st, err = w.Stats(ctx, reset); err != nil {
		return st, true, err
	}
	st.Overruns, err = s.conn.Overruns(s.tapIndex)
	return st, true, err
}

// Counters returns what the switch counted from port src to port dst since it was made.
func (s *Switch) Counters(src, dst int) (bpf.Counters, error) {
	if src < 0 || src >= MaxPorts || dst < 0 || dst >= MaxPorts {
		return bpf.Counters{}, fmt.Errorf("counters of %d to %d: not ports of 0..%d", src, dst, MaxPorts-1)
	}
	if s.steer == nil {
		return bpf.Counters{}, s.steerErr
	}
	return s.steer.Counters(src, dst)
}

// Ports returns all ports in their order.
func (s *Switch) Ports() []Port {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Port
	for _, p := range s.ports {
		all = append(all, p.Port)
	}
	slices.SortFunc(all, func(a, b Port) int { return a.Index - b.Index })
	return all
}

// NetNS is the switch's own namespace, where one can listen on its ports.
func (s *Switch) NetNS() *os.File { return s.ns }

// Close ends the wire and lets the switch go; the system takes its devices away
// when the tenants are gone too. Closing twice is no error.
func (s *Switch) Close() error { return s.close() }

func (s *Switch) closeAll() error {
	close(s.closing)
	s.watch.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	if s.wire != nil {
		errs = append(errs, s.wire.Close())
	}
	if s.tap != nil {
		errs = append(errs, s.tap.Close())
	}
	s.emu.close()
	for _, p := range s.ports {
		if p.conn != nil {
			p.conn.Close()
		}
	}
	if s.conn != nil {
		s.conn.Close()
	}
	if s.steer != nil {
		s.steer.Close()
	}
	s.flows.close()
	if s.ns != nil {
		errs = append(errs, s.ns.Close())
	}
	return errors.Join(errs...)
}

// ProbeSwitch says whether this host can cut links: net.partition needs no more.
// The error is [errors.ErrUnsupported] if it cannot.
func ProbeSwitch(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return bpf.Probe()
}

// ProbeWire says whether this host can hold frames back, which net.delay,
// net.rate and all other impairments need. The error is
// [errors.ErrUnsupported] if it cannot.
func ProbeWire(ctx context.Context) error {
	if err := ProbeSwitch(ctx); err != nil {
		return err
	}
	return link.ProbeTap()
}
