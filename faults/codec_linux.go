package faults

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"brownout/kvserver"
)

// A codecFault asks the target itself to encode otherwise.
type codecFault struct{ b *bench }

func newCodecFault(b *bench) Provider { return &codecFault{b} }

func (f *codecFault) Probe(ctx context.Context) error {
	return f.b.probeAdmin(ctx, "codec.switch", "cpu.quota and net.rate, which slow all that a program does")
}

func (f *codecFault) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	if r, _ := codecOf(d); r == (kvserver.CodecRequest{}) {
		return nil, errors.New("codec.switch: one of codec, bloat and fields is to be given")
	}
	return f.b.codecs.inject(ctx, site.Nodes, d, codecOf)
}

// codecOf reads a dose, of which a profile may leave nothing.
func codecOf(d Dose) (kvserver.CodecRequest, error) {
	r := kvserver.CodecRequest{Codec: d.String("codec"), BloatBytes: int(d.Float("bloat_bytes")), Fields: int(d.Float("fields"))}
	if r.Codec == "same" {
		r.Codec = ""
	}
	if r.BloatBytes < 0 || r.Fields < 0 {
		return r, errors.New("codec.switch: bloat and fields cannot be less than nothing")
	}
	return r, nil
}

// setCodec tells a node's program how to encode: as the last fault asks, with all
// that any of them adds. A program that does not run does not encode.
func (b *bench) setCodec(ctx context.Context, node string, asked []kvserver.CodecRequest) error {
	n, err := b.node(node)
	if err != nil {
		return err
	}
	var all kvserver.CodecRequest
	for _, r := range asked {
		if r.Codec != "" {
			all.Codec = r.Codec
		}
		all.BloatBytes, all.Fields = all.BloatBytes+r.BloatBytes, all.Fields+r.Fields
	}
	a := adminOf(n)
	defer a.close()
	if err := a.call(ctx, http.MethodPost, "/fault/codec", all, nil); err != nil && (len(asked) > 0 || n.Running()) {
		return fmt.Errorf("ask %s to encode otherwise: %w", node, err)
	}
	return nil
}
