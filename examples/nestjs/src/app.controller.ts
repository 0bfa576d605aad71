import { Body, Controller, Get, HttpCode, Post } from '@nestjs/common';

import { AppService } from './app.service';

@Controller()
export class AppController {
  constructor(private readonly service: AppService) {}

  @Get()
  async whoAmI(): Promise<{ pid: number }> {
    return this.service.whoAmI();
  }

  @Post('echo')
  @HttpCode(200)
  async echo(@Body() body: unknown): Promise<unknown> {
    return this.service.echo(body);
  }

  @Get('healthz')
  health(): string {
    return 'ok';
  }
}
