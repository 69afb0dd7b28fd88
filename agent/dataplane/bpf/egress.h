/* The program run for each copy on its way out. */
#ifndef ISTHMUS_EGRESS_H
#define ISTHMUS_EGRESS_H

SEC("xdp/devmap")
int gateway_egress(struct xdp_md *context)
{
	return XDP_PASS;
}

#endif
