/* Forwarding of the gateway in the kernel: every program, around the maps they share. */
#include "maps.h"
#include "gateway_xdp.h"
#include "egress.h"
#include "gateway_tc.h"
#include "gateway_tc_entry.h"

char terms[] SEC("license") = "Apache-2.0";
