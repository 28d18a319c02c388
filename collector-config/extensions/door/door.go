// Package door is a Collector extension for a receiver that others than this host can reach: it turns away before
// anything is read, and says in the log whom and why.
//
// The Collector says nothing of a refused token. Over gRPC it asks for one only when the whole message has been read,
// decompressed and decoded, which whoever finds the port can have it do (grpc-go 1.81, processUnaryRPC: interceptors
// run after the decoder); and a handshake that fails is told by grpc-go at info, which the Collector never shows
// (otelcol 0.155, internal/grpclog). Over HTTP it asks first, and tells of handshakes, as it should.
//
// And it says when the certificate that the receiver shows has expired. A sender that does not trust it leaves, and in the
// receiver's log that is "bad certificate" or no more than "EOF".
//
// Name it as the `authenticator` of a receiver's gRPC and HTTP servers, and in the `middlewares` of the gRPC one. It
// asks the extension that its own `authenticator` names; without one it lets all in and only tells of handshakes,
// which is for certificates as the senders' proof.
package door

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/extension/extensionauth"
	"go.opentelemetry.io/collector/extension/extensioncapabilities"
	"go.opentelemetry.io/collector/extension/extensionmiddleware"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
)

// What comes before the token is there to be asked for: grpc-go itself takes 16 MiB of headers from anybody. Those of a
// sender have a few hundred bytes.
const headerBytes = 16 << 10

// A message over gRPC must be there, and answered, in that time: as read_timeout over HTTP (gateway.yaml).
const callTime = 60 * time.Second

var (
	errNoServer = errors.New("is no extension that authenticates senders")

	_ extensionauth.Server            = (*door)(nil)
	_ extensionmiddleware.GRPCServer  = (*door)(nil)
	_ extensioncapabilities.Dependent = (*door)(nil)
)

// Config of the extension.
type Config struct {
	// Authenticator is the extension that is asked.
	Authenticator component.ID `mapstructure:"authenticator"`
	// CertificateFile is the one that the receiver shows, PEM.
	CertificateFile string `mapstructure:"certificate_file"`
}

// NewFactory makes the extension `door`.
func NewFactory() extension.Factory {
	return extension.NewFactory(
		component.MustNewType("door"),
		func() component.Config { return &Config{} },
		func(_ context.Context, settings extension.Settings, config component.Config) (extension.Extension, error) {
			own := config.(*Config)
			return &door{
				asked: own.Authenticator,
				book:  newBook(settings.Logger, time.Now),
				watch: &watch{log: settings.Logger, file: own.CertificateFile},
			}, nil
		},
		component.StabilityLevelStable,
	)
}

type door struct {
	asked  component.ID
	server extensionauth.Server
	book   *book
	watch  *watch
}

// Dependencies says what starts before.
func (d *door) Dependencies() []component.ID {
	if d.asked == (component.ID{}) {
		return nil
	}
	return []component.ID{d.asked}
}

// Start finds the extension that is asked, and listens to what grpc-go says: extensions start before the receivers.
func (d *door) Start(_ context.Context, host component.Host) error {
	if d.asked != (component.ID{}) {
		server, is := host.GetExtensions()[d.asked].(extensionauth.Server)
		if !is {
			return fmt.Errorf("%v %w", d.asked, errNoServer)
		}
		d.server = server
	}
	grpclog.SetLoggerV2(newListener(d.book))
	d.watch.start()
	return nil
}

// Shutdown ends the watch.
func (d *door) Shutdown(context.Context) error {
	d.watch.stop()
	return nil
}

// Authenticate asks, and says who was refused; over gRPC the tap has asked already.
func (d *door) Authenticate(ctx context.Context, sources map[string][]string) (context.Context, error) {
	if d.server == nil {
		return ctx, nil
	}
	inside, err := d.server.Authenticate(ctx, sources)
	if err != nil {
		d.book.refuse(sender(ctx), err.Error())
	}
	return inside, err
}

// GetGRPCServerOptions returns what asks when the headers of a call have come, lets few of them come, and bounds the time
// of what follows: grpc-go waits for a message as long as its sender likes.
func (d *door) GetGRPCServerOptions(context.Context) ([]grpc.ServerOption, error) {
	ask := func(ctx context.Context, call *tap.Info) (context.Context, error) {
		if _, err := d.Authenticate(ctx, call.Header); err != nil {
			return ctx, status.Error(codes.Unauthenticated, err.Error())
		}
		return within(ctx, callTime), nil
	}
	return []grpc.ServerOption{grpc.InTapHandle(ask), grpc.MaxHeaderListSize(headerBytes)}, nil
}

// within is a context of a call that ends after that time at the latest.
func within(ctx context.Context, most time.Duration) context.Context {
	inside, end := context.WithTimeout(ctx, most)
	// With the call, which ends the context around it.
	context.AfterFunc(inside, end)
	return inside
}

// sender is the address that a request comes from, without the port.
func sender(ctx context.Context) string {
	var address net.Addr
	if found, is := peer.FromContext(ctx); is {
		address = found.Addr
	} else {
		address = client.FromContext(ctx).Addr
	}
	if address == nil {
		return "unknown"
	}
	return host(address.String())
}

func host(address string) string {
	if name, _, err := net.SplitHostPort(address); err == nil {
		return name
	}
	return address
}
