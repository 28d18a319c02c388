// Package surestorage is a Collector extension: a storage for exporters' queues, over another one, with which a kill
// amid a start loses nothing.
//
// After a crash the queue puts the requests that were under way at its end again (exporterhelper 0.155,
// persistentQueue.enqueueNotDispatchedReqs): it reads them, deletes them in one transaction, and then writes them in one
// transaction each. Of what is under way in small requests, a thousand in a backlog, that takes seconds on a disk that
// is synced; a kill meanwhile loses those that are not written yet, and all of them were acknowledged.
//
// Here they are moved before the queue sees its storage, in one transaction: from their keys to the end, out of the
// list of what is under way. So the queue finds nothing to put again.
//
// Name it as the `storage` of a sending_queue, and in its own `storage` the extension that stores.
package surestorage

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/extension/extensioncapabilities"
	"go.opentelemetry.io/collector/extension/xextension/storage"
	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/protowire"
)

// Of exporterhelper's internal/queue/meta.proto: where the queue keeps its metadata, and the fields of these. A request's
// key is its index in decimal.
const (
	metadataKey     = "qmv0"
	writeIndexField = 4
	underWayField   = 5
)

var (
	errNoStorage = errors.New("`storage` names the extension that stores, such as file_storage")

	_ storage.Extension               = (*sure)(nil)
	_ extensioncapabilities.Dependent = (*sure)(nil)
)

// Config names the extension that stores.
type Config struct {
	Storage component.ID `mapstructure:"storage"`
}

// Validate says what is wrong with the settings.
func (c *Config) Validate() error {
	if c.Storage == (component.ID{}) {
		return errNoStorage
	}
	return nil
}

// NewFactory makes the extension `sure_storage`.
func NewFactory() extension.Factory {
	return extension.NewFactory(
		component.MustNewType("sure_storage"),
		func() component.Config { return &Config{} },
		func(_ context.Context, settings extension.Settings, config component.Config) (extension.Extension, error) {
			return &sure{log: settings.Logger, under: config.(*Config).Storage}, nil
		},
		component.StabilityLevelStable,
	)
}

type sure struct {
	component.ShutdownFunc
	log   *zap.Logger
	under component.ID
	store storage.Extension
}

// Dependencies says what starts before.
func (s *sure) Dependencies() []component.ID {
	return []component.ID{s.under}
}

// Start finds the extension that stores.
func (s *sure) Start(_ context.Context, host component.Host) error {
	store, is := host.GetExtensions()[s.under].(storage.Extension)
	if !is {
		return fmt.Errorf("%v is no storage extension", s.under)
	}
	s.store = store
	return nil
}

// GetClient opens a storage; what is in it of a queue is without requests under way then.
func (s *sure) GetClient(ctx context.Context, kind component.Kind, id component.ID, name string) (storage.Client, error) {
	client, err := s.store.GetClient(ctx, kind, id, name)
	if err != nil {
		return nil, err
	}
	moved, err := moveToEnd(ctx, client)
	if err != nil {
		// As it is now nothing is lost; the queue would lose it on a disk that is full, for one.
		return nil, errors.Join(fmt.Errorf("requests that were under way cannot be put in the queue: %w", err), client.Close(ctx))
	}
	if moved > 0 {
		s.log.Info("Requests that were under way are in the queue again", zap.Int("requests", moved))
	}
	return client, nil
}

// moveToEnd puts the requests under way at the queue's end, in one transaction; says how many there were.
func moveToEnd(ctx context.Context, client storage.Client) (int, error) {
	written, err := client.Get(ctx, metadataKey)
	if err != nil {
		return 0, err
	}
	found, is := parse(written)
	if !is || len(found.underWay) == 0 {
		return 0, nil
	}
	reading := make([]*storage.Operation, len(found.underWay))
	for i, index := range found.underWay {
		reading[i] = storage.GetOperation(key(index))
	}
	if err := client.Batch(ctx, reading...); err != nil {
		return 0, err
	}
	var moving []*storage.Operation
	for _, read := range reading {
		if read.Value != nil {
			moving = append(moving, storage.SetOperation(key(found.writeIndex), read.Value), storage.DeleteOperation(read.Key))
			found.writeIndex++
		}
	}
	moving = append(moving, storage.SetOperation(metadataKey, found.withNothingUnderWay()))
	return len(moving) / 2, client.Batch(ctx, moving...)
}

// metadata of a queue.
type metadata struct {
	writeIndex uint64
	underWay   []uint64
	// All other fields, as they were written.
	rest []byte
}

// parse reads metadata; false where these are none, which the queue says then.
func parse(written []byte) (metadata, bool) {
	var found metadata
	for len(written) > 0 {
		field, kind, size := protowire.ConsumeField(written)
		if size < 0 {
			return metadata{}, false
		}
		value := written[protowire.SizeTag(field):size]
		switch {
		case field == writeIndexField && kind == protowire.Fixed64Type:
			found.writeIndex, _ = protowire.ConsumeFixed64(value)
		case field == underWayField && kind == protowire.Fixed64Type:
			index, _ := protowire.ConsumeFixed64(value)
			found.underWay = append(found.underWay, index)
		case field == underWayField && kind == protowire.BytesType:
			packed, _ := protowire.ConsumeBytes(value)
			for len(packed) > 0 {
				index, size := protowire.ConsumeFixed64(packed)
				if size < 0 {
					return metadata{}, false
				}
				found.underWay = append(found.underWay, index)
				packed = packed[size:]
			}
		default:
			found.rest = append(found.rest, written[:size]...)
		}
		written = written[size:]
	}
	return found, true
}

func (m metadata) withNothingUnderWay() []byte {
	return protowire.AppendFixed64(protowire.AppendTag(m.rest, writeIndexField, protowire.Fixed64Type), m.writeIndex)
}

func key(index uint64) string {
	return strconv.FormatUint(index, 10)
}
