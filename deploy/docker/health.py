"""Ask a gRPC server for the health of one service: exit code 0 only for SERVING.

usage: python health.py HOST:PORT SERVICE
"""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S = 4.0


def main(arguments: list[str]) -> int:
    """0: SERVING; 1: anything else, with one line that says what; 2: wrong usage."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python health.py HOST:PORT SERVICE\n")
        return 2
    target, service = arguments
    with grpc.insecure_channel(target) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S
            )
        except grpc.RpcError as error:
            sys.stdout.write(f"{target} {service}: {error.code().name}: {error.details()}\n")
            return 1
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    sys.stdout.write(f"{target} {service}: {status}\n")
    return 0 if status == "SERVING" else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
