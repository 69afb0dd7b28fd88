/* The program run for each copy on its way out: the copies of a packet leave by interfaces of different addresses. */
#ifndef ISTHMUS_EGRESS_H
#define ISTHMUS_EGRESS_H

#include "maps.h"
#include "parse.h"

SEC("xdp/devmap")
int gateway_egress(struct xdp_md *context)
{
	struct ethhdr *ethernet = (void *)(long)context->data;
	__u32 index = context->egress_ifindex;
	struct port *port;

	if ((void *)(ethernet + 1) > (void *)(long)context->data_end)
		return XDP_DROP;
	port = bpf_map_lookup_elem(&ports, &index);
	if (port)
		__builtin_memcpy(ethernet->h_source, port->address, sizeof(ethernet->h_source));
	return XDP_PASS;
}

#endif
