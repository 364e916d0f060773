package kvserver

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
)

// CodecRequest changes how a node encodes from the next entry on; {} makes it
// encode as configured.
type CodecRequest struct {
	Codec      string `json:"codec,omitempty"`       // none: the configured one
	BloatBytes int    `json:"bloat_bytes,omitempty"` // more in each command
	Fields     int    `json:"fields,omitempty"`      // the same
}

// change puts r in force.
func (s *codecState) change(r CodecRequest) error {
	c, err := newCoding(cmp.Or(r.Codec, s.own.codec.name), s.own.bloat+r.BloatBytes, s.own.fields+r.Fields)
	if err != nil {
		return fmt.Errorf("%w: %v", errBadRequest, err)
	}
	s.now.Store(c)
	return nil
}

func (s *server) codecFault(_ context.Context, in json.RawMessage) (any, error) {
	var r CodecRequest
	if err := json.Unmarshal(in, &r); err != nil {
		return nil, fmt.Errorf("%w: %v", errBadRequest, err)
	}
	if err := s.codec.change(r); err != nil {
		return nil, err
	}
	return done, nil
}
