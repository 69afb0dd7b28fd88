/* The program behind the drivers of the uplinks. */
#ifndef ISTHMUS_GATEWAY_TC_H
#define ISTHMUS_GATEWAY_TC_H

#include <linux/pkt_cls.h>

SEC("tc")
int gateway_tc(struct __sk_buff *packet)
{
	return TC_ACT_OK;
}

#endif
