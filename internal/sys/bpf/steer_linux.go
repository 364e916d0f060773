package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"brownout/internal/sys/link"
	"brownout/internal/sys/netns"
	"brownout/internal/sys/unsupported"
)

// MaxPorts is the number of ports of a switch. Port i has number i+1 in MAC
// addresses and rules; 0 stands for groups and, among ports, for the wire.
const MaxPorts = 63

// MAC returns the address of port i: locally administered, 02 "bo" and the port's number.
func MAC(i int) net.HardwareAddr { return net.HardwareAddr{0x02, 'b', 'o', 0, 0, byte(i + 1)} }

// A Rule says what becomes of the frames of one directed pair.
type Rule uint32

// The rules. NB: the values are compared with in the programs below.
const (
	Pass Rule = iota // to the bridge
	Drop             // nowhere, and the wire's leftovers neither
	Wire             // to the TAP
)

// To is the rule that sends a pair's frames out of a device of the switch's
// namespace, whose index must be more than 2.
func To(index int) Rule { return Rule(index) }

// Counters count packets, as a network without offloads would carry them: a
// super-packet counts as its segments. Bytes are those of Ethernet frames, a
// super-packet's without the repeated headers.
// NB: the order of fields is that of the programs below.
type Counters struct {
	Seen    uint64 // packets that came in at the source's port
	Bytes   uint64
	Dropped uint64 // packets that met Drop, at the port or coming back from the wire
	Wired   uint64 // packets sent to the wire, or out of a device by To
}

const (
	offSeen, offBytes, offDropped, offWired = 0, 8, 16, 24
	countersSize                            = 32
	pairs                                   = 64 * 64
	wireSlot                                = 0

	actUnspec = -1 // TC_ACT_UNSPEC: no opinion, the frame goes on
	actShot   = 2  // TC_ACT_SHOT

	skbLen     = 0   // offsets in struct __sk_buff, include/uapi/linux/bpf.h
	skbGSOSegs = 164 // Linux 5.1

	frameMark = 12 // bytes of [Mark], in place of both MAC addresses
)

// A Steering is one switch's programs with their tables. It is safe for
// concurrent use; a change of a rule is one atomic store.
type Steering struct {
	rules, counts, ports *ebpf.Map
	pair, out            *ebpf.Program
}

// Load loads the programs; nothing is attached yet. The error is
// [errors.ErrUnsupported] where the kernel does not give us eBPF.
func Load() (*Steering, error) {
	s, err := load()
	if errors.Is(err, fs.ErrPermission) { // before 5.11, maps count as locked memory
		if rlimit.RemoveMemlock() == nil {
			s, err = load()
		}
	}
	if err != nil {
		return nil, explain(err)
	}
	return s, nil
}

func load() (_ *Steering, err error) {
	s := &Steering{}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	for _, m := range []struct {
		to            **ebpf.Map
		name          string
		size, entries uint32
	}{
		{&s.rules, "bo_rules", 4, pairs},
		{&s.counts, "bo_counts", countersSize, pairs},
		{&s.ports, "bo_ports", 4, MaxPorts + 1},
	} {
		*m.to, err = ebpf.NewMap(&ebpf.MapSpec{Name: m.name, Type: ebpf.Array, KeySize: 4, ValueSize: m.size, MaxEntries: m.entries})
		if err != nil {
			return nil, fmt.Errorf("make map %s: %w", m.name, err)
		}
	}
	for src := range uint32(MaxPorts + 1) { // groups
		if err := s.rules.Put(src<<6, Drop); err != nil {
			return nil, fmt.Errorf("fill map bo_rules: %w", err)
		}
	}
	if s.pair, err = program("bo_pair", s.pairCode()); err != nil {
		return nil, err
	}
	// Straight into the tenant's device, which saves a third of the wire's time;
	// before Linux 5.10, out of the port.
	if s.out, err = program("bo_out", s.outCode(asm.FnRedirectPeer)); err != nil {
		s.out, err = program("bo_out", s.outCode(asm.FnRedirect))
	}
	return s, err
}

func program(name string, code asm.Instructions) (*ebpf.Program, error) {
	// Dual, because the kernel lends some of its helpers to GPL programs only.
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.SchedCLS, License: "Dual MIT/GPL", Instructions: code})
	if err != nil {
		return nil, fmt.Errorf("load program %s: %w", name, err)
	}
	return p, nil
}

// Close lets go of everything; attached programs stay as long as their devices.
func (s *Steering) Close() {
	for _, m := range []*ebpf.Map{s.rules, s.counts, s.ports} {
		if m != nil {
			m.Close()
		}
	}
	for _, p := range []*ebpf.Program{s.pair, s.out} {
		if p != nil {
			p.Close()
		}
	}
}

// AttachPort runs the pair program on what comes in at the device index of c's
// namespace, as port i.
func (s *Steering) AttachPort(c *link.Conn, i, index int) error {
	if err := s.ports.Put(uint32(i+1), uint32(index)); err != nil {
		return fmt.Errorf("note port %d: %w", i, err)
	}
	return attach(c, index, s.pair, "bo_pair")
}

// AttachWire runs the out program on what comes in at the device index, and
// makes it the way to the wire.
func (s *Steering) AttachWire(c *link.Conn, index int) error {
	if err := s.AttachOut(c, index); err != nil {
		return err
	}
	if err := s.ports.Put(uint32(wireSlot), uint32(index)); err != nil {
		return fmt.Errorf("note wire: %w", err)
	}
	return nil
}

// AttachOut runs the out program on what comes in at the device index: frames
// that a rule had leave by a device come back to their destination.
func (s *Steering) AttachOut(c *link.Conn, index int) error {
	return attach(c, index, s.out, "bo_out")
}

func attach(c *link.Conn, index int, p *ebpf.Program, name string) error {
	if err := c.Ingress(index); err != nil {
		return explain(err)
	}
	if err := c.Program(index, p.FD(), name); err != nil {
		return explain(err)
	}
	return nil
}

func key(src, dst int) uint32 { return uint32(src+1)<<6 | uint32(dst+1) }

// Set changes the rule of a directed pair of ports, at once for all CPUs.
func (s *Steering) Set(src, dst int, r Rule) error {
	if err := s.rules.Put(key(src, dst), r); err != nil {
		return fmt.Errorf("set rule of %d to %d: %w", src, dst, err)
	}
	return nil
}

// Counters reads the counters of a directed pair of ports.
func (s *Steering) Counters(src, dst int) (Counters, error) { return s.read(key(src, dst)) }

// Groups reads the counters of what port src sent to broadcast and multicast addresses.
func (s *Steering) Groups(src int) (Counters, error) { return s.read(uint32(src+1) << 6) }

func (s *Steering) read(key uint32) (c Counters, err error) {
	if err := s.counts.Lookup(key, &c); err != nil {
		return c, fmt.Errorf("read counters: %w", err)
	}
	return c, nil
}

// lookup leaves the key src<<6|dst in R7 and on the stack, a pointer to the
// value of m in R0, and jumps to missing without one.
func lookup(m *ebpf.Map, missing string) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, missing),
	}
}

func add(off int16, src asm.Register) asm.Instruction {
	return asm.AddAtomic.Mem(asm.R8, src, asm.DWord, off)
}

// pairOf puts the rule of the frame's pair into R9, a pointer to its counters
// into R8, the number of its packets into R7 and the destination at FP-8. R6 is the context.
func (s *Steering) pairOf() asm.Instructions {
	return join(
		asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.LoadAbs(0, asm.Byte),
			asm.Mov.Reg(asm.R8, asm.R0),
			asm.LoadAbs(5, asm.Byte),
			asm.Mov.Reg(asm.R7, asm.R0),
			asm.And.Imm(asm.R7, MaxPorts),
			asm.And.Imm(asm.R8, 1), // the group bit
			asm.JEq.Imm(asm.R8, 0, "unicast"),
			asm.Mov.Imm(asm.R7, 0),
			asm.LoadAbs(11, asm.Byte).WithSymbol("unicast"),
			asm.And.Imm(asm.R0, MaxPorts),
			asm.StoreMem(asm.RFP, -8, asm.R7, asm.Word),
			asm.StoreMem(asm.RFP, -12, asm.R0, asm.Word),
			asm.LSh.Imm(asm.R0, 6),
			asm.Or.Reg(asm.R7, asm.R0),
			asm.StoreMem(asm.RFP, -4, asm.R7, asm.Word),
		},
		lookup(s.rules, "shot"),
		asm.Instructions{asm.LoadMem(asm.R9, asm.R0, 0, asm.Word)},
		lookup(s.counts, "shot"),
		asm.Instructions{
			asm.Mov.Reg(asm.R8, asm.R0),
			asm.LoadMem(asm.R7, asm.R6, skbGSOSegs, asm.Word),
			asm.JNE.Imm(asm.R7, 0, "super"),
			asm.Mov.Imm(asm.R7, 1),
			asm.Mov.Reg(asm.R1, asm.R7).WithSymbol("super"), // a place to jump to
		},
	)
}

func (s *Steering) pairCode() asm.Instructions {
	return join(
		s.pairOf(),
		asm.Instructions{
			add(offSeen, asm.R7),
			asm.LoadMem(asm.R1, asm.R6, skbLen, asm.Word),
			add(offBytes, asm.R1),
			asm.JEq.Imm(asm.R9, int32(Drop), "drop"),
			asm.JEq.Imm(asm.R9, int32(Wire), "wire"),
			asm.JGT.Imm(asm.R9, int32(Wire), "device"),
			asm.Mov.Imm(asm.R0, actUnspec),
			asm.Return(),

			add(offWired, asm.R7).WithSymbol("device"),
			asm.Mov.Reg(asm.R1, asm.R9),
			asm.Mov.Imm(asm.R2, 0),
			asm.FnRedirect.Call(),
			asm.Return(),

			add(offWired, asm.R7).WithSymbol("wire"),
			// The MAC addresses say no more than two numbers; their place takes
			// the time, so that the wire's own wake-up never adds to a delay.
			// Built behind FP-24: destination, source, two bytes of nothing, time.
			asm.FnKtimeGetNs.Call(),
			asm.StoreMem(asm.RFP, -20, asm.R0, asm.Word),
			asm.RSh.Imm(asm.R0, 32),
			asm.StoreMem(asm.RFP, -16, asm.R0, asm.Word),
			asm.StoreImm(asm.RFP, -24, 0, asm.Word),
			asm.LoadMem(asm.R1, asm.RFP, -8, asm.Word),
			asm.StoreMem(asm.RFP, -24, asm.R1, asm.Byte),
			asm.LoadMem(asm.R1, asm.RFP, -12, asm.Word),
			asm.StoreMem(asm.RFP, -23, asm.R1, asm.Byte),
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.Mov.Imm(asm.R2, 0),
			asm.Mov.Reg(asm.R3, asm.RFP),
			asm.Add.Imm(asm.R3, -24),
			asm.Mov.Imm(asm.R4, frameMark),
			asm.Mov.Imm(asm.R5, 0),
			asm.FnSkbStoreBytes.Call(),
			asm.JNE.Imm(asm.R0, 0, "drop"),
			asm.StoreImm(asm.RFP, -4, wireSlot, asm.Word),
		},
		lookup(s.ports, "drop"),
		finish(asm.FnRedirect),
	)
}

func (s *Steering) outCode(redirect asm.BuiltinFunc) asm.Instructions {
	return join(
		s.pairOf(),
		asm.Instructions{
			asm.JEq.Imm(asm.R9, int32(Drop), "drop"),
			asm.LoadMem(asm.R1, asm.RFP, -8, asm.Word),
			asm.StoreMem(asm.RFP, -4, asm.R1, asm.Word),
		},
		lookup(s.ports, "drop"),
		finish(redirect),
	)
}

// finish redirects the frame to the device whose index R0 points to, if there
// is one; "drop" counts it in R8 and "shot" does not.
func finish(redirect asm.BuiltinFunc) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.JEq.Imm(asm.R1, 0, "drop"),
		asm.Mov.Imm(asm.R2, 0),
		redirect.Call(),
		asm.Return(),
		add(offDropped, asm.R7).WithSymbol("drop"),
		asm.Mov.Imm(asm.R0, actShot).WithSymbol("shot"),
		asm.Return(),
	}
}

func join(parts ...asm.Instructions) (all asm.Instructions) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// Probe does all that steering needs once, in a namespace of its own: nil,
// [errors.ErrUnsupported] with what is missing, or the error of the probe itself.
func Probe() error {
	s, err := Load()
	if err != nil {
		return err
	}
	defer s.Close()
	ns, err := netns.New()
	if errors.Is(err, fs.ErrPermission) {
		return &unsupported.Error{What: "network namespace", Why: err.Error(), Cure: "run as root; in a container add --cap-add SYS_ADMIN,NET_ADMIN"}
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	c, err := link.At(ns)
	if err != nil {
		return err
	}
	defer c.Close()
	const loopback = 1
	return attach(c, loopback, s.pair, "bo_pair")
}

// explain turns what the kernel answers when it lacks something into words.
func explain(err error) error {
	lacks := func(why, cure string) error {
		return &unsupported.Error{What: "eBPF steering", Why: why, Cure: cure}
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		return lacks(err.Error(), "run as root; in a container add --cap-add BPF,NET_ADMIN,SYS_ADMIN and allow bpf(2) in seccomp")
	case errors.Is(err, unix.ENOSYS), errors.Is(err, ebpf.ErrNotSupported):
		return lacks("the kernel has no bpf(2): "+err.Error(), "a kernel of 5.1 or later with CONFIG_BPF_SYSCALL=y")
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.EOPNOTSUPP):
		return lacks("the kernel has no clsact or cls_bpf: "+err.Error(), "modprobe sch_ingress cls_bpf (CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF, CONFIG_NET_CLS_ACT)")
	}
	return err
}
