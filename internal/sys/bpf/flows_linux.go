package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"brownout/internal/sys/link"
)

// A Flow is one direction of a TCP connection. With both ports 0 it stands for
// all that would begin one between the two addresses: packets with SYN.
type Flow struct{ Src, Dst netip.AddrPort }

// Flows drops the packets of single TCP connections at the ports of a switch,
// before [Steering] sees them. It is safe for concurrent use.
type Flows struct {
	cut  *ebpf.Map // flow → packets dropped
	prog *ebpf.Program
}

const (
	flowKeySize = 40 // source, destination (16 bytes each, an IPv4 address in the first four), ports, nothing
	maxFlows    = 1 << 16
)

// LoadFlows loads the program; it is attached nowhere yet.
func LoadFlows() (_ *Flows, err error) {
	f := &Flows{}
	defer func() {
		if err != nil {
			f.Close()
			err = explain(err)
		}
	}()
	f.cut, err = ebpf.NewMap(&ebpf.MapSpec{Name: "bo_flows", Type: ebpf.Hash, KeySize: flowKeySize, ValueSize: 8, MaxEntries: maxFlows})
	if err != nil {
		return nil, fmt.Errorf("make map bo_flows: %w", err)
	}
	f.prog, err = program("bo_flow", f.code())
	return f, err
}

// Close lets go of everything. The program stays where it is attached, and
// drops what it was told to.
func (f *Flows) Close() {
	if f.cut != nil {
		f.cut.Close()
	}
	if f.prog != nil {
		f.prog.Close()
	}
}

// Attach runs the program on what comes in at the device index of c's
// namespace, before the one that [Steering.AttachPort] put there.
func (f *Flows) Attach(c *link.Conn, index int) error {
	if err := c.FirstProgram(index, f.prog.FD(), "bo_flow"); err != nil {
		return explain(err)
	}
	return nil
}

// Detach takes the program away again.
func (f *Flows) Detach(c *link.Conn, index int) error { return c.RemoveFirst(index) }

// Cut drops the packets of a flow from now on.
func (f *Flows) Cut(flow Flow) error {
	if err := f.cut.Update(flowKey(flow), uint64(0), ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("cut flow %s to %s: %w", flow.Src, flow.Dst, err)
	}
	return nil
}

// Heal lets a flow pass again; one that passes is no error.
func (f *Flows) Heal(flow Flow) error {
	if err := f.cut.Delete(flowKey(flow)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("heal flow %s to %s: %w", flow.Src, flow.Dst, err)
	}
	return nil
}

// Dropped returns how many packets of a flow were dropped since it was cut; ok
// is false for one that is not.
func (f *Flows) Dropped(flow Flow) (n uint64, ok bool) {
	err := f.cut.Lookup(flowKey(flow), &n)
	return n, err == nil
}

func flowKey(f Flow) (k [flowKeySize]byte) {
	address := func(b []byte, a netip.Addr) {
		if a = a.Unmap(); a.Is4() {
			ip := a.As4()
			copy(b, ip[:])
			return
		}
		ip := a.As16()
		copy(b, ip[:])
	}
	address(k[0:], f.Src.Addr())
	address(k[16:], f.Dst.Addr())
	binary.BigEndian.PutUint16(k[32:], f.Src.Port())
	binary.BigEndian.PutUint16(k[34:], f.Dst.Port())
	return k
}

// code looks the frame's flow up, whose key it builds behind FP-40. LoadAbs and
// LoadInd give numbers in the host's byte order; they are turned back.
func (f *Flows) code() asm.Instructions {
	const key = -flowKeySize
	store := func(offset int32, at int16, size asm.Size) asm.Instructions {
		ins := asm.Instructions{asm.LoadAbs(offset, size)}
		return append(ins, asm.HostTo(asm.BE, asm.R0, size), asm.StoreMem(asm.RFP, key+at, asm.R0, size))
	}
	words := func(offset int32, at int16, n int) (ins asm.Instructions) {
		for i := range n {
			ins = append(ins, store(offset+int32(4*i), at+int16(4*i), asm.Word)...)
		}
		return ins
	}
	const etherLen, tcp, fragment, syn = 14, unix.IPPROTO_TCP, 0x1fff, 2
	return join(
		asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.Mov.Imm(asm.R0, 0),
			asm.StoreMem(asm.RFP, key, asm.R0, asm.DWord),
			asm.StoreMem(asm.RFP, key+8, asm.R0, asm.DWord),
			asm.StoreMem(asm.RFP, key+16, asm.R0, asm.DWord),
			asm.StoreMem(asm.RFP, key+24, asm.R0, asm.DWord),
			asm.StoreMem(asm.RFP, key+32, asm.R0, asm.DWord),
			asm.LoadAbs(12, asm.Half),
			asm.JEq.Imm(asm.R0, unix.ETH_P_IPV6, "six"),
			asm.JNE.Imm(asm.R0, unix.ETH_P_IP, "pass"),
			asm.LoadAbs(etherLen+9, asm.Byte),
			asm.JNE.Imm(asm.R0, tcp, "pass"),
			asm.LoadAbs(etherLen+6, asm.Half),
			asm.And.Imm(asm.R0, fragment),
			asm.JNE.Imm(asm.R0, 0, "pass"), // a later fragment has no ports
			asm.LoadAbs(etherLen, asm.Byte),
			asm.And.Imm(asm.R0, 0xf),
			asm.LSh.Imm(asm.R0, 2),
			asm.Mov.Reg(asm.R7, asm.R0),
		},
		words(etherLen+12, 0, 1),
		words(etherLen+16, 16, 1),
		asm.Instructions{asm.Ja.Label("ports")},
		asm.Instructions{
			asm.LoadAbs(etherLen+6, asm.Byte).WithSymbol("six"),
			asm.JNE.Imm(asm.R0, tcp, "pass"),
			asm.Mov.Imm(asm.R7, 40),
		},
		words(etherLen+8, 0, 4),
		words(etherLen+24, 16, 4),
		asm.Instructions{
			asm.LoadInd(asm.R0, asm.R7, etherLen+13, asm.Byte).WithSymbol("ports"),
			asm.And.Imm(asm.R0, syn),
			asm.JNE.Imm(asm.R0, 0, "look"),
			asm.LoadInd(asm.R0, asm.R7, etherLen, asm.Word), // both ports
			asm.HostTo(asm.BE, asm.R0, asm.Word),
			asm.StoreMem(asm.RFP, key+32, asm.R0, asm.Word),
			asm.LoadMapPtr(asm.R1, f.cut.FD()).WithSymbol("look"),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, key),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "pass"),
			asm.Mov.Imm(asm.R1, 1),
			asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0),
			asm.Mov.Imm(asm.R0, actShot),
			asm.Return(),
			asm.Mov.Imm(asm.R0, actUnspec).WithSymbol("pass"),
			asm.Return(),
		},
	)
}
