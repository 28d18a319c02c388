package patientclient

import (
	"context"
	"testing"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const method = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"

func newClient(t *testing.T) (*client, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.WarnLevel)
	factory := NewFactory()
	settings := extension.Settings{
		ID:                component.NewID(factory.Type()),
		TelemetrySettings: component.TelemetrySettings{Logger: zap.New(core)},
	}
	made, err := factory.Create(context.Background(), settings, factory.CreateDefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	return made.(*client), logs
}

func answered(c *client, answer error) error {
	next := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return answer }
	return c.call(context.Background(), method, nil, nil, nil, next)
}

func TestRefusalsOverSettingsAreUnavailable(t *testing.T) {
	c, _ := newClient(t)
	for _, code := range []codes.Code{
		codes.Unknown, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied, codes.FailedPrecondition,
		codes.Unimplemented, codes.Internal, codes.Unauthenticated,
	} {
		got := status.Convert(answered(c, status.Error(code, "no token")))
		if got.Code() != codes.Unavailable || got.Message() != code.String()+", tried again: no token" {
			t.Errorf("%s became %s", code, got)
		}
	}
}

func TestAllElsePassesUnchanged(t *testing.T) {
	c, logs := newClient(t)
	for _, code := range []codes.Code{
		codes.Canceled, codes.InvalidArgument, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted,
		codes.OutOfRange, codes.Unavailable, codes.DataLoss,
	} {
		answer := status.Error(code, "not now")
		if got := answered(c, answer); got != answer {
			t.Errorf("%s became %s", code, got)
		}
	}
	if got := answered(c, nil); got != nil {
		t.Errorf("success became %s", got)
	}
	if logs.Len() != 0 {
		t.Errorf("logged %v", logs.All())
	}
}

func TestDetailsAreKept(t *testing.T) {
	c, _ := newClient(t)
	answer, err := status.New(codes.PermissionDenied, "no").WithDetails(&errdetails.RetryInfo{})
	if err != nil {
		t.Fatal(err)
	}
	details := status.Convert(answered(c, answer.Err())).Details()
	if len(details) != 1 {
		t.Fatalf("details are %v", details)
	}
	if _, ok := details[0].(*errdetails.RetryInfo); !ok {
		t.Errorf("RetryInfo became %v", details[0])
	}
}

func TestTheFirstOfASeriesIsLogged(t *testing.T) {
	c, logs := newClient(t)
	wrongToken := status.Error(codes.Unauthenticated, "wrong token")
	stranger := status.Error(codes.Unimplemented, "unknown service")
	away := status.Error(codes.Unavailable, "connection refused")
	for _, step := range []struct {
		answer error
		logged int
	}{
		{wrongToken, 1},
		{wrongToken, 1},
		{away, 1},
		{wrongToken, 1},
		{stranger, 2},
		{stranger, 2},
		{nil, 2},
		{stranger, 3},
	} {
		_ = answered(c, step.answer)
		if logs.Len() != step.logged {
			t.Fatalf("after %v: %d lines, not %d", step.answer, logs.Len(), step.logged)
		}
	}
}

func TestAHandshakeThatFailsIsSaidOnce(t *testing.T) {
	c, logs := newClient(t)
	for _, words := range []string{
		`connection error: desc = "transport: authentication handshake failed: tls: failed to verify certificate"`,
		`connection error: desc = "error reading server preface: remote error: tls: expired certificate"`,
		"write tcp 127.0.0.1:1->127.0.0.1:2: write: broken pipe",
	} {
		answer := status.Error(codes.Unavailable, words)
		for range 2 {
			if got := answered(c, answer); got != answer {
				t.Errorf("it became %s", got)
			}
		}
		if err := answered(c, nil); err != nil {
			t.Fatal(err)
		}
	}
	if said := logs.FilterMessageSnippet("look at TLS and certificates").Len(); said != 3 {
		t.Errorf("said %d times", said)
	}
	away := `connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`
	_ = answered(c, status.Error(codes.Unavailable, away))
	if said := logs.FilterMessageSnippet("look at TLS").Len(); said != 3 {
		t.Error("nobody there is no matter of TLS")
	}
}
