package faults

import "context"

func Calibrate(ctx context.Context, exe string, families []string) ([]Row, error) { return nil, nil }
