package qdisc

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"brownout/internal/sys/unsupported"
)

// A Conn is a netlink socket inside one network namespace.
type Conn struct{ sh *nl.SocketHandle }

// At opens a Conn inside ns.
func At(ns *os.File) (*Conn, error) {
	s, err := nl.GetNetlinkSocketAt(netns.NsHandle(ns.Fd()), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return &Conn{&nl.SocketHandle{Socket: s}}, nil
}

// Close closes the socket.
func (c *Conn) Close() { c.sh.Close() }

func (c *Conn) request(verb, flags int, index int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(verb, flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: c.sh}
	req.AddData(&nl.TcMsg{
		Family: nl.FAMILY_ALL, Ifindex: int32(index),
		Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(1, 0),
	})
	return req
}

// Set makes n the root of what a device sends, or changes it in place: packets
// that are held already keep their due times. It reads back.
func (c *Conn) Set(index int, n Netem) error {
	opts, err := n.options()
	if err != nil {
		return err
	}
	req := c.request(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK, index)
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("netem")))
	req.AddData(nl.NewRtAttr(nl.TCA_OPTIONS, opts))
	_, err = req.Execute(unix.NETLINK_ROUTE, 0)
	if errors.Is(err, unix.ENOENT) {
		return &unsupported.Error{What: "netem", Why: "the kernel has no sch_netem", Cure: "modprobe sch_netem, a kernel with CONFIG_NET_SCH_NETEM, or provider: wire"}
	}
	if err != nil {
		return fmt.Errorf("set netem of link %d: %w", index, err)
	}
	got, _, err := c.Get(index)
	if err != nil {
		return err
	}
	if bad := n.same(got); bad != "" {
		return fmt.Errorf("set netem of link %d: read back: %s", index, bad)
	}
	return nil
}

// Get reads what a device's root has; os.ErrNotExist if it is no netem. seeded
// says whether this kernel draws by a seed.
func (c *Conn) Get(index int) (n Netem, seeded bool, err error) {
	msgs, err := c.request(unix.RTM_GETQDISC, unix.NLM_F_DUMP, index).Execute(unix.NETLINK_ROUTE, unix.RTM_NEWQDISC)
	if err != nil {
		return n, false, fmt.Errorf("read netem of link %d: %w", index, err)
	}
	for _, m := range msgs {
		msg := nl.DeserializeTcMsg(m)
		if int(msg.Ifindex) != index || msg.Parent != netlink.HANDLE_ROOT {
			continue
		}
		attrs, err := nl.ParseRouteAttr(m[msg.Len():])
		if err != nil {
			return n, false, fmt.Errorf("read netem of link %d: %w", index, err)
		}
		kind, opts := "", []byte(nil)
		for _, a := range attrs {
			switch a.Attr.Type &^ nested {
			case nl.TCA_KIND:
				kind = nl.BytesToString(a.Value)
			case nl.TCA_OPTIONS:
				opts = a.Value
			}
		}
		if kind == "netem" {
			return decode(opts)
		}
	}
	return n, false, fmt.Errorf("read netem of link %d: %w", index, os.ErrNotExist)
}

// Probe says whether this kernel has sch_netem, and whether it draws by a seed.
// It tries on the loopback of a namespace that nobody uses.
func Probe(ns *os.File) (seeded bool, err error) {
	c, err := At(ns)
	if err != nil {
		return false, err
	}
	defer c.Close()
	const loopback = 1
	if err := c.Set(loopback, Netem{Limit: 1, Seed: 1}); err != nil {
		return false, err
	}
	_, seeded, err = c.Get(loopback)
	return seeded, err
}
